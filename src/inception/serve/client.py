"""Asking a running server: one connection kept open, busy answers waited for."""

import base64
import http.client
import json
import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from inception.errors import DataError, InceptionError, UsageError
from inception.runtime.inputs import expand_inputs

MAX_TRIES = 8
_TIMEOUT_SECONDS = 60.0


class ServerError(InceptionError):
    """The server cannot be reached, refuses the client, or fails."""


@dataclass(frozen=True)
class ClientOptions:
    """What is asked of the server for every image; fields as in its `/classify`."""

    model: str | None = None
    top: int = 5
    auxiliary: bool = False
    unknown: bool = False

    def query(self) -> str:
        """The URL's query."""
        values: dict[str, Any] = {"top": self.top}
        if self.model is not None:
            values["model"] = self.model
        values |= {name: 1 for name in ("auxiliary", "unknown") if getattr(self, name)}
        return urlencode(values)


@dataclass(frozen=True)
class Explanation:
    """Why an image has its answer.

    Attributes:
        picture: PNG, the map laid over what the network sees.
        values: the server's other values: `target`, `method`, `signed`, `places`, `modules`, `kinds`.
    """

    picture: bytes
    values: dict[str, Any]


class Client:
    """A connection to the server at `url` (http or https), with its token if it wants one.

    Raises UsageError for what is no such URL.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{url} is not a server's URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url} is not a server's URL; it looks like http://127.0.0.1:8000")
        self.url = url
        self._prefix = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
        self._headers = {"Content-Type": "application/octet-stream"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(
                parts.hostname, port, timeout=_TIMEOUT_SECONDS, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, port, timeout=_TIMEOUT_SECONDS)

    def classify(self, image: bytes, options: ClientOptions) -> dict[str, Any]:
        """The server's result for one encoded image: `top` (and `auxiliary`), or `error`.

        Raises ServerError when there is none: no server, no permission, busy for too long, a failure.
        """
        status, answer = self._ask("POST", f"/classify?{options.query()}", image)
        if status == 200 and answer.get("results"):
            result: dict[str, Any] = answer["results"][0]
            return {key: value for key, value in result.items() if key != "path"}
        if status in (413, 415, 422) or (status == 400 and answer.get("results")):
            return {"error": _reason(answer)}
        raise self._refused(status, answer)

    def explain(
        self, image: bytes, method: str, target: int | None = None, model: str | None = None
    ) -> Explanation:
        """Where in one encoded image, which can be read, the answer comes from.

        Args:
            image: a file's bytes.
            method: as of `inception explain`.
            target: position of the class; None: the answer.
            model: name of the model; None: the server's first.

        Raises ServerError when there is no explanation, also for a model that cannot be explained.
        """
        values = {"method": method, "target": target, "model": model}
        query = urlencode({key: value for key, value in values.items() if value is not None})
        status, answer = self._ask("POST", f"/explain?{query}", image)
        if status != 200 or "pictures" not in answer:
            raise self._refused(status, answer)
        picture = base64.b64decode(answer["pictures"]["overlay"])
        names = ("target", "method", "signed", "places", "modules", "kinds")
        return Explanation(picture, {name: answer[name] for name in names})

    def labels(self, model: str | None = None) -> list[str]:
        """The classes of a model, None: of the server's first. Raises ServerError."""
        if model is None:
            status, answer = self._ask("GET", "/models")
            if status != 200 or not answer.get("models"):
                raise self._refused(status, answer)
            model = str(answer["models"][0]["name"])
        status, answer = self._ask("GET", f"/v2/models/{quote(model, safe='')}")
        if status != 200:
            raise self._refused(status, answer)
        return list(answer["labels"])

    def _refused(self, status: int, answer: dict[str, Any]) -> ServerError:
        return ServerError(f"{self.url} answers {status}: {_reason(answer)}")

    def _ask(self, verb: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        """Status and document; a busy server is asked again."""
        for _ in range(MAX_TRIES - 1):
            status, retry_seconds, answer = self._request(verb, path, body)
            if status != 503:
                return status, answer
            time.sleep(retry_seconds)
        status, _, answer = self._request(verb, path, body)
        return status, answer

    def _request(self, verb: str, path: str, body: bytes | None) -> tuple[int, float, dict[str, Any]]:
        for again in (True, False):
            try:
                self._connection.request(verb, self._prefix + path, body, self._headers)
                response = self._connection.getresponse()
                content = response.read()
                break
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                # A connection kept open may have been closed meanwhile; a new one settles it.
                self._connection.close()
                if not again:
                    raise ServerError(f"{self.url} closes the connection: {error}") from error
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                raise ServerError(f"{self.url} cannot be reached: {error}") from error
        try:
            answer = json.loads(content)
        except ValueError:
            answer = {}
        retry = response.getheader("Retry-After", "1")
        seconds = float(retry) if retry.isdecimal() else 1.0
        return response.status, seconds, answer if isinstance(answer, dict) else {}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _reason(answer: dict[str, Any]) -> str:
    return str(answer.get("error", "no reason given"))


def read_images(paths: Iterable[str], listing: Iterable[str]) -> Iterator[tuple[str, bytes | str]]:
    """(name, bytes) of every image file, or (name, what is wrong), as `inception predict` finds them.

    Args:
        paths, listing: as for `expand_inputs`.
    """
    for name, image in expand_inputs(paths, listing):
        try:
            yield name, image.read()
        except DataError as error:
            yield name, str(error)
