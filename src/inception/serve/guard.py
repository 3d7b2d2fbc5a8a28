"""What stands before every route: identity, token, security headers, metrics and the request log."""

import hmac
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inception.serve.hosts import Hosts
from inception.serve.logs import log_event
from inception.serve.metrics import Metrics
from inception.serve.models import Models
from inception.serve.settings import Settings

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=(), payment=(), usb=()",
}
# What shows nothing of the models: probes, and the page with which a person enters the token.
_OPEN = ("/", "/openapi.json", "/v2/health/live", "/v2/health/ready")
_OPEN_PREFIX = "/static/"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
CLIENT_GONE = 499
"""The status in log and metrics of a request whose client has gone; never sent."""


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, models: Models, settings: Settings, metrics: Metrics) -> None:
        self._app, self._models, self._metrics = app, models, metrics
        self._token = settings.token.encode() if settings.token else None
        self._hosts = Hosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; scopes other than HTTP are not served."""
        if scope["type"] != "http":
            return
        start, headers = time.perf_counter(), Headers(scope=scope)
        request_id = request_id_of(headers.get("x-request-id", ""))
        seen = {"status": CLIENT_GONE, "bytes_in": 0}

        async def counted_receive() -> Message:
            message = await receive()
            seen["bytes_in"] += len(message.get("body", b""))
            return message

        async def dressed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                self._dress(MutableHeaders(scope=message), request_id)
            await send(message)

        refusal = self._refusal(scope, headers)
        try:
            await (refusal or self._app)(scope, counted_receive, dressed_send)
        finally:
            self._record(scope, request_id, seen, time.perf_counter() - start)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        path: str = scope["path"]
        if not self._hosts.accepts(headers.get("host")):
            return JSONResponse({"error": self._hosts.refusal()}, 421)
        if scope["method"] == "POST" and headers.get("sec-fetch-site") == "cross-site":
            return JSONResponse({"error": "requests from pages of other sites are not answered"}, 403)
        if self._token is None or path in _OPEN or path.startswith(_OPEN_PREFIX):
            return None
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(shown.strip().encode("latin-1"), self._token):
            return None
        return JSONResponse(
            {"error": "this server wants a token: send it as 'Authorization: Bearer TOKEN'"},
            401,
            {"WWW-Authenticate": "Bearer"},
        )

    def _dress(self, headers: MutableHeaders, request_id: str) -> None:
        for name, value in SECURITY_HEADERS.items():
            headers[name] = value
        headers["X-Request-Id"] = request_id
        headers.setdefault("Cache-Control", "no-store")
        if self._models.draining:
            headers["Connection"] = "close"

    def _record(self, scope: Scope, request_id: str, seen: dict[str, int], seconds: float) -> None:
        # The route's function, not the path: paths are the client's, and without bound.
        route: str = getattr(scope.get("endpoint"), "__name__", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        client = scope["client"][0] if scope.get("client") else None
        record(self._metrics, route, method, seen["status"], request_id, seen["bytes_in"], client, seconds)


def request_id_of(given: str) -> str:
    """The client's identifier of a request where it is harmless, else a new one."""
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def record(
    metrics: Metrics,
    route: str,
    method: str,
    status: int,
    request_id: str,
    bytes_in: int,
    client: str | None,
    seconds: float,
) -> None:
    """Count one request and write its line in the log."""
    metrics.requests.labels(route, method, str(status)).observe(seconds)
    metrics.bodies.labels(route).observe(bytes_in)
    fields: dict[str, Any] = {
        "request_id": request_id,
        "method": method,
        "route": route,
        "status": status,
        "seconds": round(seconds, 6),
        "bytes_in": bytes_in,
        "client": client,
    }
    log_event("request", **fields)
