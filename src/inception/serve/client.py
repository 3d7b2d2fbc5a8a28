"""Asking a running server: one connection kept open, busy answers waited for."""

import http.client
import json
import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from inception.data.archives import open_archive
from inception.data.decode import EXTENSIONS
from inception.data.stores import FolderStore, Store
from inception.errors import DataError, InceptionError, UsageError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
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
        self._prefix = parts.path.rstrip("/")
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
        path = f"{self._prefix}/classify?{options.query()}"
        for attempt in range(1, MAX_TRIES + 1):
            status, retry_seconds, answer = self._post(path, image)
            if status == 503 and attempt < MAX_TRIES:
                time.sleep(retry_seconds)
                continue
            break
        if status == 200 and answer.get("results"):
            result: dict[str, Any] = answer["results"][0]
            return {key: value for key, value in result.items() if key != "path"}
        said = answer.get("error", "no reason given")
        if status in (413, 415, 422) or (status == 400 and answer.get("results")):
            return {"error": said}
        raise ServerError(f"{self.url} answers {status}: {said}")

    def _post(self, path: str, body: bytes) -> tuple[int, float, dict[str, Any]]:
        for again in (True, False):
            try:
                self._connection.request("POST", path, body, self._headers)
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


def read_images(paths: Iterable[str], listing: Iterable[str]) -> Iterator[tuple[str, bytes | str]]:
    """(name, bytes) of every image file, or (name, what is wrong), as `inception predict` finds them.

    A folder or archive gives its image files as `folder/name`; `-` gives the paths in `listing`, one a line.
    """
    for path in paths:
        if path == "-":
            yield from read_images((line for line in map(str.strip, listing) if line and line != "-"), ())
        elif Path(path).is_dir():
            yield from _members(FolderStore(Path(path)), path)
        elif path.lower().endswith(ARCHIVE_SUFFIXES) and Path(path).is_file():
            try:
                yield from _members(open_archive(Path(path)), path)
            except DataError as error:
                yield path, str(error)
        else:
            try:
                yield path, Path(path).read_bytes()
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                yield path, f"{path} cannot be read: {reason}"


def _members(store: Store, path: str) -> Iterator[tuple[str, bytes | str]]:
    names = [
        name
        for name in store.names()
        if Path(name).suffix.lower() in EXTENSIONS
        and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    ]
    if not names:
        yield path, f"{path} holds no images"
    for name in names:
        shown = f"{path.rstrip('/')}/{name}"
        try:
            yield shown, store.read(name)
        except DataError as error:
            yield shown, str(error)
