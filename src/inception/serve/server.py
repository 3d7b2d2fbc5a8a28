"""The HTTP server around the application: connections within limits, and a life in good order."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Sequence
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from inception.errors import InceptionError, UsageError
from inception.serve.app import build_app
from inception.serve.logs import log_event
from inception.serve.metrics import Metrics
from inception.serve.models import Models, Source
from inception.serve.refusals import Refuser
from inception.serve.settings import Settings

MAX_HEADER_BYTES = 16 << 10
_BACKLOG = 1024
_SETTLE_SECONDS = 0.2
_LAST_BYTES_SECONDS = 30.0
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: 42\r\n\r\n"
    b'{"error": "there are too many connections"}'
)


class Refusing(H11Protocol):
    """uvicorn's connection, with quick refusals between its requests.

    Attributes:
        to_skip: bytes still to come of a body that has been refused.
    """

    to_skip = 0

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


def bounded_protocol(settings: Settings, refuser: Refuser) -> type[H11Protocol]:
    """A connection that does not wait for ever for a client that sends or reads nothing."""

    class Bounded(Refusing):
        """A connection with a limit on connections and on the time between requests."""

        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """A client connects."""
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                transport.write(_TOO_MANY)
                transport.close()
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

    return Bounded


class Server(uvicorn.Server):
    """uvicorn with our start and end.

    Attributes:
        failure: why it stopped by itself, or None.
    """

    def __init__(self, models: Models, settings: Settings, metrics: Metrics) -> None:
        config = uvicorn.Config(
            build_app(models, settings, metrics),
            http=bounded_protocol(settings, Refuser(models, settings, metrics)),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_graceful_shutdown=max(1, round(settings.stop_seconds)),
        )
        super().__init__(config)
        self.failure: InceptionError | None = None
        self._models, self._settings = models, settings
        self._tasks: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen at once, so that probes are answered; load the models meanwhile."""
        await super().startup(sockets)
        self._tasks.append(asyncio.create_task(self._start_models()))
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)

    async def _start_models(self) -> None:
        try:
            await self._models.start()
        except InceptionError as error:
            self.failure = error
            self.should_exit = True
            return
        log_event("ready", models=list(self._models.sources))
        if self._settings.watch_seconds > 0:
            await self._models.watch()

    def _reload(self) -> None:
        self._tasks.append(asyncio.create_task(self._models.reload()))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or Ctrl-C: stop in good order; a second time: at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer everything that has been accepted, then end the inference processes."""
        log_event("stopping")
        self._models.draining = True
        if self.failure is None and not self.force_exit:
            # Every answer now says `Connection: close`: clients leave by themselves; who connects is served.
            await asyncio.sleep(self._settings.drain_seconds)
            await self._stop_listening(sockets or [])
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().shutdown(sockets)
        await self._models.stop()
        log_event("stopped")

    async def _stop_listening(self, sockets: Sequence[socket.socket]) -> None:
        for listener in sockets:
            with contextlib.suppress(OSError):
                listener.listen(0)  # the kernel takes no more; what it has taken is accepted here
        await asyncio.sleep(_SETTLE_SECONDS)
        for server in self.servers:
            server.close()
        await asyncio.sleep(_SETTLE_SECONDS)  # whoever connected last sends the request now


def open_listener(settings: Settings) -> socket.socket:
    """A listening socket. Raises UsageError when the address cannot be had."""
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}; "
            "try another --port"
        ) from error


def run_server(sources: Sequence[Source], settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises BundleError or UsageError when a bundle cannot be used."""
    metrics = Metrics()
    models = Models(sources, settings, metrics)
    server = Server(models, settings, metrics)
    asyncio.run(server.serve(sockets=[listener]))
    if server.failure is not None:
        raise server.failure
