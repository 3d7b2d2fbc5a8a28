"""Connections within limits: what arrives is read in pieces, and what is no HTTP is answered in JSON."""

import asyncio
import json
import sys
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from inception.serve.guard import SECURITY_HEADERS, record, request_id_of
from inception.serve.metrics import Metrics
from inception.serve.refusals import Refuser
from inception.serve.settings import Settings

MAX_HEADER_BYTES = 16 << 10
_LAST_BYTES_SECONDS = 30.0
_READ_BYTES = 16 << 10
"""So much is read of one connection before the others have their turn."""
_FREE_CHUNKS, _MEAN_CHUNK_BYTES = 1024, 64
_SENTENCES = {
    400: "this is no valid HTTP request",
    413: f"the body comes in chunks of less than {_MEAN_CHUNK_BYTES} bytes; send larger ones",
    431: f"the headers of the request are over the limit of {MAX_HEADER_BYTES:,} bytes",
    501: "of the transfer encodings only chunked is understood",
    503: "there are too many connections",
}


def answer_bytes(status: int, text: str, headers: Mapping[str, str]) -> bytes:
    """A whole HTTP answer with an error as its JSON body and the security headers; the connection ends."""
    body = json.dumps({"error": text}).encode()
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "Cache-Control": "no-store",
        **SECURITY_HEADERS,
        **headers,
    }
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join((*lines, "", "")).encode() + body


class BoundedConnection(h11.Connection):
    """h11's connection, in which the limit of headers holds however they arrive, and chunks are not tiny.

    Each chunk costs as much as a kilobyte of a large one; millions of them would keep the server busy.
    """

    _chunks = _chunk_bytes = 0

    def next_event(self) -> Any:
        """As in h11. Raises h11.RemoteProtocolError, with the status as `error_status_hint`."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._chunk_bytes = 0
            size = len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers)
            if size > MAX_HEADER_BYTES:
                raise h11.RemoteProtocolError("headers too long", error_status_hint=431)
        elif isinstance(event, h11.Data) and (event.chunk_end or event.chunk_start):
            self._chunks += 1
            self._chunk_bytes += len(event.data)
            if self._chunks > max(_FREE_CHUNKS, self._chunk_bytes // _MEAN_CHUNK_BYTES):
                raise h11.RemoteProtocolError("tiny chunks", error_status_hint=413)
        return event


class Refusing(H11Protocol):
    """uvicorn's connection, with quick refusals between its requests, and errors of the protocol in JSON.

    Attributes:
        metrics: where they are counted.
        to_skip: bytes still to come of a body that has been refused.
    """

    metrics: Metrics
    to_skip = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = BoundedConnection(h11.SERVER, MAX_HEADER_BYTES)

    def send_400_response(self, msg: str) -> None:
        """Answer what h11 does not accept; it is the exception being handled."""
        error = sys.exc_info()[1]
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started:
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.answer_error(hint if hint in _SENTENCES else 400)

    def answer_error(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Answer with an error and close the connection."""
        request_id = request_id_of("")
        more = {"X-Request-Id": request_id, **(headers or {})}
        self.transport.write(answer_bytes(status, _SENTENCES[status], more))
        self.transport.close()
        client = self.client[0] if self.client else None
        record(self.metrics, "none", "other", status, request_id, 0, client, 0.0)

    def _should_upgrade(self) -> bool:
        return False

    def unrefused(self, data: bytes, refuser: Refuser) -> bytes | None:
        """What the usual way must see of `data`; None: nothing, because it is refused or was."""
        if self.to_skip:
            skipped = min(self.to_skip, len(data))
            self.to_skip, data = self.to_skip - skipped, data[skipped:]
            if not data:
                return None
        between = self.cycle is None or self.cycle.response_complete
        if not between or self.conn.their_state is not h11.IDLE or self.conn.trailing_data[0]:
            return data
        if self.flow.write_paused or self.transport.is_closing():
            return data
        refused = refuser.refuse(data, self.client[0] if self.client else None)
        if refused is None:
            return data
        answer, self.to_skip = refused
        self._unset_keepalive_if_required()
        self.transport.write(answer)
        return None


def bounded_protocol(settings: Settings, refuser: Refuser, metrics: Metrics) -> type[H11Protocol]:
    """A connection that does not wait for ever for a client that sends or reads nothing."""

    class Bounded(Refusing):
        """A connection with a limit on connections and on the time between requests."""

        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """A client connects."""
            super().connection_made(transport)
            if hasattr(transport, "max_size"):  # of asyncio's own transports, other than on Windows
                transport.max_size = _READ_BYTES
            if len(self.connections) > settings.max_connections:
                self.answer_error(503, {"Retry-After": "1"})
            self._wait_for_request(settings.header_seconds)

        def connection_lost(self, exc: Exception | None) -> None:
            """The connection has ended."""
            self._stop_waiting()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Bytes from the client."""
            skipping = self.to_skip
            if (rest := self.unrefused(data, refuser)) is None:
                if not (skipping and self.to_skip):  # a refusal, or the end of its body
                    self._wait_for_request(settings.header_seconds)
                return
            before = self.cycle
            try:
                super().data_received(rest)
            except h11.LocalProtocolError:  # nonsense in the middle of a request that is being answered
                self.transport.abort()
            if self.cycle is not before:
                self._stop_waiting()

        def on_response_complete(self) -> None:
            """An answer has been handed to the transport."""
            before = self.cycle
            super().on_response_complete()
            if self.cycle is before:
                closing = self.transport.is_closing()
                self._wait_for_request(_LAST_BYTES_SECONDS if closing else settings.header_seconds)

        def _wait_for_request(self, seconds: float) -> None:
            self._stop_waiting()
            self._patience = self.loop.call_later(seconds, self.transport.abort)

        def _stop_waiting(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

    Bounded.metrics = metrics
    return Bounded
