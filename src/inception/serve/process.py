"""The server's side of one inference process: start it, send batches, notice its end."""

import asyncio
import multiprocessing
import socket
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from inception.errors import BundleError, UsageError
from inception.serve import wire
from inception.serve.settings import Settings
from inception.serve.wire import Message

_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_END_SECONDS = 2.0


class ProcessLostError(Exception):
    """The inference process has gone, or has stopped answering."""


class InferenceProcess:
    """A running inference process.

    Attributes:
        facts: what it says of its model (see `Answerer.facts`).
        pid: its process id.
    """

    def __init__(
        self,
        process: BaseProcess,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        facts: dict[str, Any],
    ) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self.facts = facts
        self.pid = process.pid

    @classmethod
    async def start(cls, bundle: str, settings: Settings) -> "InferenceProcess":
        """Start a process on a bundle and wait until it is warm.

        Raises BundleError when the bundle cannot be used, UsageError when the device cannot.
        """
        ours, theirs = socket.socketpair()
        process = await asyncio.to_thread(_spawn, theirs, bundle, settings)
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            message, _ = await wire.receive(reader)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await _end(process, writer)
            raise BundleError("the inference process ended while it was loading the bundle") from error
        except asyncio.CancelledError:
            await _end(process, writer)
            raise
        if message["event"] == "failed":
            await _end(process, writer)
            raise (UsageError if message["usage"] else BundleError)(message["error"])
        return cls(process, reader, writer, message)

    def send(self, message: Message, payloads: Sequence[bytes]) -> None:
        """Send one batch without waiting."""
        self._writer.write(wire.pack(message, payloads))

    async def receive(self) -> tuple[Message, list[bytes]]:
        """The next answer. Raises ProcessLostError when none will come."""
        try:
            return await wire.receive(self._reader)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ProcessLostError("the inference process has ended") from error

    async def end(self) -> None:
        """Close the channel, which ends the process; kill it if it does not end."""
        await _end(self._process, self._writer)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()


def _spawn(channel: socket.socket, bundle: str, settings: Settings) -> BaseProcess:
    # PyTorch is imported once, in the fork server: a lost inference process is back within a second.
    context: Any = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(["inception.serve.worker"])
    process: BaseProcess = context.Process(
        target=_run,
        args=(
            channel,
            {
                "bundle": bundle,
                "device": settings.device,
                "precision": settings.precision,
                "threads": settings.threads,
                "max_pixels": settings.max_pixels,
                "max_batch": settings.max_batch,
                "explain": settings.explain,
            },
        ),
        name="inception-inference",
        daemon=True,
    )
    with channel:
        process.start()
    return process


def _run(channel: socket.socket, order: dict[str, Any]) -> None:
    # Imported here, in the new process: the server itself never loads PyTorch.
    from inception.serve.worker import Order, run_worker

    run_worker(channel, Order(**order))


async def _end(process: BaseProcess, writer: asyncio.StreamWriter) -> None:
    writer.close()
    await asyncio.to_thread(process.join, _END_SECONDS)
    if process.is_alive():
        process.kill()
        await asyncio.to_thread(process.join)
