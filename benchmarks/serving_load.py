"""A server process and the load on it, for `serving*.py`: asyncio clients on connections that they keep."""

import asyncio
import contextlib
import io
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

CLIENTS = 16
_IDLE_SECONDS = 3.0
"""How long an idle connection is used again; the server closes those that idle longer."""


def children(pid: int) -> list[int]:
    """Process ids of a process's children (Linux)."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for text in lists for child in text.split()]


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(below for child in children(pid) for below in tree(child))]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and all below it have used, user and system."""
    ticks = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """A server process and what it logged."""

    process: "subprocess.Popen[str]"
    port: int
    events: Counter[str] = field(default_factory=Counter)

    def resident_bytes(self) -> int:
        """Memory of the server and all its processes, shared pages counted once a process."""
        total = 0
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                total += pages * os.sysconf("SC_PAGE_SIZE")
        return total

    def worker(self) -> int:
        """Process id of the inference process: the youngest of the fork server's children."""
        return max(pid for child in children(self.process.pid) for pid in children(child))

    def stop(self) -> int:
        """SIGTERM and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def litserving(bundle: str, threads: int, way: str = "ours") -> Iterator[tuple[int, int]]:
    """A bundle behind LitServe, once it answers: its port, and its process group to be stopped.

    `way` is one of `serving_litserve.WAYS`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    script = Path(__file__).with_name("serving_litserve.py")
    command = [sys.executable, str(script), bundle, str(port), str(threads), way]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            if process.poll() is not None:
                raise RuntimeError("LitServe did not start")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def serving(bundle: str, *options: str) -> Iterator[Server]:
    """`inception serve` on a free port, ready."""
    command = [sys.executable, "-c", "from inception.cli.main import main; main()", "serve", f"m={bundle}"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--log-level", "info", *options], stderr=subprocess.PIPE, text=True
    )
    server, ready = Server(process, 0), threading.Event()

    def read() -> None:
        for line in process.stderr or ():
            if line.startswith("{"):
                values = json.loads(line)
                server.events[values["event"]] += 1
                if values["event"] == "listening":
                    server.port = int(values["url"].rsplit(":", 1)[1].strip("/"))
                elif values["event"] == "ready":
                    ready.set()

    threading.Thread(target=read, daemon=True).start()
    if not ready.wait(120):
        raise RuntimeError("the server did not start")
    try:
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def request_bytes(path: str, body: bytes, **headers: str) -> bytes:
    """One HTTP request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + body


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bool]:
    """Send a request, read its answer: status, and whether the connection stays open."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
    await reader.readexactly(length)
    return int(head[9:12]), b"connection: close" not in head


@dataclass
class Tally:
    """Answers by status with their seconds; `lost` were sent and never answered."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    lost: int = 0

    def add(self, status: int, seconds: float) -> None:
        """One answer."""
        self.seconds.setdefault(status, []).append(seconds)

    def count(self, status: int) -> int:
        """Answers with this status."""
        return len(self.seconds.get(status, ()))

    def quantile_ms(self, status: int, share: float) -> float:
        """A quantile of the time to answers with this status, in milliseconds."""
        values = sorted(self.seconds.get(status, [0.0]))
        return 1000 * values[min(int(share * len(values)), len(values) - 1)]


async def closed_loop(
    port: int,
    requests: list[bytes],
    seconds: float,
    clients: int = CLIENTS,
    tally: Tally | None = None,
    stop: threading.Event | None = None,
) -> Tally:
    """Clients that each send the next request as soon as the last is answered.

    They end after `seconds`, or when `stop` is set. Answers are added to `tally` where one is given.
    """
    tally, end = Tally() if tally is None else tally, time.monotonic() + seconds
    stop = threading.Event() if stop is None else stop

    async def client(number: int) -> None:
        turn = number
        while time.monotonic() < end and not stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            keep = True
            while keep and time.monotonic() < end and not stop.is_set():
                start = time.perf_counter()
                try:
                    status, keep = await exchange(reader, writer, requests[turn % len(requests)])
                except (OSError, asyncio.IncompleteReadError):
                    tally.lost += 1
                    break
                tally.add(status, time.perf_counter() - start)
                turn += 1
            writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return tally


async def open_loop(
    port: int, requests: list[bytes], rate: float, seconds: float, even: bool = False
) -> Tally:
    """`rate` requests a second, whether or not earlier ones are answered: evenly spaced, or at random."""
    tally, draw = Tally(), random.Random(0)
    idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []
    tasks: set[asyncio.Task[None]] = set()

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while idle:
            since, reader, writer = idle.pop()
            if time.monotonic() - since < _IDLE_SECONDS:
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", port)

    async def one(request: bytes) -> None:
        start = time.perf_counter()
        try:
            reader, writer = await connect()
            status, keep = await exchange(reader, writer, request)
        except (OSError, asyncio.IncompleteReadError):
            tally.lost += 1
            return
        tally.add(status, time.perf_counter() - start)
        if keep:
            idle.append((time.monotonic(), reader, writer))
        else:
            writer.close()

    begin, due = time.monotonic(), 0.0
    while due < seconds:
        await asyncio.sleep(max(0.0, begin + due - time.monotonic()))
        task = asyncio.create_task(one(draw.choice(requests)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += 1.0 / rate if even else draw.expovariate(rate)
    await asyncio.gather(*tasks)
    for _, _, writer in idle:
        writer.close()
    return tally


def read_or_draw(folder: Path | None) -> list[bytes]:
    """JPEG files to ask about: those of a folder, or drawn ones."""
    if folder is not None:
        return [
            path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix.lower() in (".jpg", ".jpeg")
        ]
    images = []
    for index in range(16):
        stream = io.BytesIO()
        picture = Image.effect_noise((400, 300), 20 + index).convert("RGB")
        picture.save(stream, "JPEG", quality=85)
        images.append(stream.getvalue())
    return images


def machine(threads: int) -> dict[str, object]:
    """What it was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"processor": processor, "cores": os.cpu_count(), "threads": threads, "load_before": load}
