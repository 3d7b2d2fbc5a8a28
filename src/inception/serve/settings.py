"""What a server is told, and how it says no."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inception.errors import UsageError

MIN_TOKEN_LENGTH = 16
LIGHT_PIXELS, SLOW_PIXELS, BATCH_PIXELS = 6_000_000, 1 << 24, 32_000_000
"""Images with more pixels to read than the first are weighed: batches are filled up to the last. Those with
more than the second take so long that they come alone, and after others.
"""
MAX_SCANS = 10
"""Of an image of `max_pixels`; smaller ones may have more. Usual progressive JPEGs have ten scans."""
REQUESTS_SHARE = 2
"""So many images of the largest size and most scans may be in one request, or wait for a model."""
_HOST_NAME = re.compile(r"\*|[A-Za-z0-9._-]+|[0-9A-Fa-f]*(?:::?[0-9A-Fa-f.]*){2,}")


@dataclass(frozen=True)
class Settings:
    """Every setting of a server.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        allow_hosts: names in a request's Host header under which it answers as well, see `hosts.Hosts`.
        token: what a client must show as `Authorization: Bearer …`, or None.
        device, precision, threads: how networks run, as in `load`; threads None leaves it to PyTorch.
        max_body_bytes: largest request body.
        max_json_bytes: largest JSON part of an inference request.
        max_images: most images in one request.
        max_pixels: most pixels (width x height) of an image; larger ones are refused before decoding.
        max_batch: most images computed at once.
        max_queue: most images waiting for a model; what comes on top gets 503.
        explain: whether answers may be explained, which takes several times as long as to give them.
        max_explanations: most explanations waiting for a model or being computed; on top: 503.
        max_buffered_bytes: request bodies held at once; above, 503.
        max_connections: open connections; above, 503.
        deadline_seconds: an image that has waited longer gets 503 and is not computed.
        batch_seconds: an inference process that needs longer for one batch is replaced.
        body_seconds: time a client has to send its body.
        header_seconds: time it has to send the next request's headers.
        drain_seconds: after SIGTERM, how long new connections are still accepted.
        stop_seconds: after that, how long open requests may take.
        watch_seconds: how often bundles are looked at for a new version; 0: only on SIGHUP.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    allow_hosts: Sequence[str] = ()
    token: str | None = None
    device: str = "auto"
    precision: str = "float32"
    threads: int | None = None
    max_body_bytes: int = 32 << 20
    max_json_bytes: int = 4 << 20
    max_images: int = 32
    max_pixels: int = 50_000_000
    max_batch: int = 8
    max_queue: int = 64
    explain: bool = True
    max_explanations: int = 2
    max_buffered_bytes: int = 256 << 20
    max_connections: int = 1000
    deadline_seconds: float = 10.0
    batch_seconds: float = 60.0
    body_seconds: float = 20.0
    header_seconds: float = 15.0
    drain_seconds: float = 1.0
    stop_seconds: float = 30.0
    watch_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.max_images > self.max_queue:
            raise UsageError(
                f"a request may bring {self.max_images} images but only {self.max_queue} may wait: "
                "raise --max-queue or lower --max-images"
            )
        for name in self.allow_hosts:
            if not _HOST_NAME.fullmatch(name):
                raise UsageError(f"--allow-host takes a name without scheme and port, not {name!r}")
        if self.token is not None and len(self.token) < MIN_TOKEN_LENGTH:
            raise UsageError(f"the token must have at least {MIN_TOKEN_LENGTH} characters")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise UsageError("the token must be of printable ASCII characters")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


class RequestError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status code.
        headers: added to the answer.
        body: the whole JSON answer, where it is more than `{"error": …}`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body = dict(body or {"error": message})


def unavailable(message: str, retry_seconds: int = 1) -> RequestError:
    """503: the same request may succeed after `retry_seconds`."""
    return RequestError(503, message, {"Retry-After": str(max(retry_seconds, 1))})
