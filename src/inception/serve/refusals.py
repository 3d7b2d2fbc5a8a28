"""The quickest way to say no: where the queue is full, 503 before the request is parsed in full.

At ten times the load that a machine can bear, saying no the usual way takes the processor time of half the
answers. Only plain requests are met here: a whole head of well-formed headers, none of them twice, and one
Content-Length. All others go the usual way, where the same refusal awaits them.
"""

import hmac
import json
import re
import time
from email.utils import formatdate

from inception.serve.guard import SECURITY_HEADERS, record, request_id_of
from inception.serve.hosts import Hosts
from inception.serve.metrics import Metrics
from inception.serve.models import Models
from inception.serve.settings import RequestError, Settings

_MAX_HEAD_BYTES = 8 << 10
_TARGET = re.compile(
    rb"POST /(classify|explain|v2/models/(?P<path>[\w.-]+)(?:/versions/[\w.-]+)?/(infer))"
    rb"(?:\?(?P<query>[!-~]*))? HTTP/1\.1"
)
_MODEL = re.compile(rb"(?:^|&)model=([\w.-]+)(?:&|$)")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~]*?)[ \t]*")
# What changes how a body is read, or what the answer must be.
_UNUSUAL = {b"transfer-encoding", b"expect", b"upgrade", b"trailer", b"te", b"sec-fetch-site"}
_SECURITY = "".join(f"{name}: {value}\r\n" for name, value in SECURITY_HEADERS.items())


class Refuser:
    """Says no for all connections of a server."""

    def __init__(self, models: Models, settings: Settings, metrics: Metrics) -> None:
        self._models, self._settings, self._metrics = models, settings, metrics
        self._hosts = Hosts(settings)
        self._token = b"Bearer " + settings.token.encode() if settings.token else None

    def refuse(self, data: bytes, client: str | None) -> tuple[bytes, int] | None:
        """The answer to a request that begins with `data`, and how much of its body is still to come.

        None: it is not refused here.
        """
        start = time.perf_counter()
        end = data.find(b"\r\n\r\n", 0, _MAX_HEAD_BYTES)
        first, *lines = data[: max(end, 0)].split(b"\r\n")
        target = _TARGET.fullmatch(first)
        if target is None or self._models.draining:
            return None
        reason = self._reason(target)
        headers = _headers(lines) if reason is not None else None
        if reason is None or headers is None or not self._allowed(headers):
            return None
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or len(length) > 12 or int(length) > self._settings.max_body_bytes:
            return None
        to_come = int(length) - (len(data) - end - 4)
        if to_come < 0:  # the next request is already here
            return None
        request_id = request_id_of(headers.get(b"x-request-id", b"").decode("latin-1"))
        route = (target[3] or target[1]).decode()
        record(self._metrics, route, "POST", 503, request_id, 0, client, time.perf_counter() - start)
        return _answer(reason, request_id), to_come

    def _reason(self, target: re.Match[bytes]) -> RequestError | None:
        """Why an image would not be queued now, or None."""
        named = target["path"] or (found[1] if (found := _MODEL.search(target["query"] or b"")) else None)
        try:
            self._models.engine(named.decode() if named else None).check_room()
        except RequestError as error:
            return error if error.status == 503 else None
        return None

    def _allowed(self, headers: dict[bytes, bytes]) -> bool:
        if not self._hosts.accepts(headers[b"host"].decode("latin-1")):
            return False
        shown = headers.get(b"authorization", b"")
        return self._token is None or hmac.compare_digest(shown, self._token)


def _headers(lines: list[bytes]) -> dict[bytes, bytes] | None:
    """Headers by name in small letters; None when one is malformed, comes twice or is unusual."""
    headers: dict[bytes, bytes] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None or (name := found[1].lower()) in headers or name in _UNUSUAL:
            return None
        headers[name] = found[2]
    if b"host" not in headers or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    return headers


def _answer(reason: RequestError, request_id: str) -> bytes:
    """As the usual way answers."""
    body = json.dumps(reason.body)
    return (
        "HTTP/1.1 503 Service Unavailable\r\n"
        f"Retry-After: {reason.headers['Retry-After']}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{_SECURITY}X-Request-Id: {request_id}\r\n"
        f"Cache-Control: no-store\r\nDate: {formatdate(usegmt=True)}\r\n\r\n{body}"
    ).encode()
