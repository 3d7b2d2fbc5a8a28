"""The HTTP server around the application: a life in good order."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Sequence
from types import FrameType

import uvicorn

from inception.errors import InceptionError, UsageError
from inception.serve.app import build_app
from inception.serve.connections import MAX_HEADER_BYTES, bounded_protocol
from inception.serve.logs import log_event
from inception.serve.metrics import Metrics
from inception.serve.models import Models, Source
from inception.serve.refusals import Refuser
from inception.serve.settings import Settings

_BACKLOG = 1024
_SETTLE_SECONDS = 0.2


class Server(uvicorn.Server):
    """uvicorn with our start and end.

    Attributes:
        failure: why it stopped by itself, or None.
    """

    def __init__(self, models: Models, settings: Settings, metrics: Metrics) -> None:
        config = uvicorn.Config(
            build_app(models, settings, metrics),
            http=bounded_protocol(settings, Refuser(models, settings, metrics), metrics),
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
