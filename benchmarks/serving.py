"""The server beside the classifier in process, under load and overload, and its trials in full number.

    python benchmarks/serving.py googlenet_5h --json serving.json
    python benchmarks/serving.py googlenet_5h --quick            # everything once, in about a minute
    python benchmarks/serving.py googlenet_5h --only soak --seconds 3600

throughput   images/s over HTTP (16 clients without pause) against the same classifier in process, in turns,
             for encoded images (`predict`, `/classify`) and for pixels (`logits`, binary tensors); with
             `--litserve` also a LitServe server around the same classifier
latency      p50 and p99 at 70% of that peak, arrivals at random
overload     2, 5 and 10 times the peak: goodput, how soon the rest gets 503, the server's memory
sigterm      requests lost when a server under load is told to stop
kill         failed requests and time without answers when the inference process is killed
soak         memory and p99 in the first and the last tenth of a long run at 70% of the peak

The load comes from this process by asyncio; it takes a few per cent of one core, which is not subtracted.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from inception.runtime.classifier import Classifier, load

PARTS = ("throughput", "latency", "overload", "sigterm", "kill", "soak")
BATCH, CLIENTS = 8, 16
LITSERVE = """
import sys, litserve, torch
from inception.runtime.classifier import load
class Api(litserve.LitAPI):
    def setup(self, device):
        self.classifier = load(sys.argv[1], "cpu")
    async def decode_request(self, request):
        return await request.body()
    def predict(self, images):
        return self.classifier.predict(list(images))
    def encode_response(self, answer):
        return answer.to_dict()
if __name__ == "__main__":
    api = Api(max_batch_size=8, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[2]), log_level="error")
"""


def children(pid: int) -> list[int]:
    """Process ids of a process's children (Linux)."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for text in lists for child in text.split()]


@dataclass
class Server:
    """A server process and what it logged."""

    process: "subprocess.Popen[str]"
    port: int
    events: Counter[str] = field(default_factory=Counter)

    def resident_bytes(self) -> int:
        """Memory of the server and all its processes, shared pages counted once a process."""
        pids, total = [self.process.pid], 0
        while pids:
            pid = pids.pop()
            with contextlib.suppress(OSError):
                pids += children(pid)
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


async def closed_loop(port: int, requests: list[bytes], seconds: float, clients: int = CLIENTS) -> Tally:
    """Clients that each send the next request as soon as the last is answered."""
    tally, end = Tally(), time.monotonic() + seconds

    async def client(number: int) -> None:
        turn = number
        while time.monotonic() < end:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            keep = True
            while keep and time.monotonic() < end:
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


async def open_loop(port: int, requests: list[bytes], rate: float, seconds: float) -> Tally:
    """Requests at random times, `rate` a second on average, whether or not earlier ones are answered."""
    tally, idle, draw = Tally(), [], random.Random(0)
    tasks: set[asyncio.Task[None]] = set()

    async def one(request: bytes) -> None:
        start = time.perf_counter()
        try:
            reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
            status, keep = await exchange(reader, writer, request)
        except (OSError, asyncio.IncompleteReadError):
            tally.lost += 1
            return
        tally.add(status, time.perf_counter() - start)
        if keep:
            idle.append((reader, writer))
        else:
            writer.close()

    begin, due = time.monotonic(), 0.0
    while due < seconds:
        await asyncio.sleep(max(0.0, begin + due - time.monotonic()))
        task = asyncio.create_task(one(draw.choice(requests)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += draw.expovariate(rate)
    await asyncio.gather(*tasks)
    for _, writer in idle:
        writer.close()
    return tally


@dataclass
class Bench:
    """What all measurements share."""

    bundle: str
    classifier: Classifier
    images: list[bytes]
    seconds: float
    rounds: int
    trials: int
    threads: tuple[str, ...]
    peak: float = 0.0

    def classify_requests(self) -> list[bytes]:
        """One for each image."""
        return [request_bytes("/classify", image) for image in self.images]

    def infer_requests(self) -> list[bytes]:
        """One batch of pixels, as binary tensors."""
        shape = [BATCH, *pixels(self).shape[1:]]
        size = {"binary_data_size": pixels(self).numel()}
        source = {"name": "images", "datatype": "UINT8", "shape": shape, "parameters": size}
        outputs = [{"name": "logits", "parameters": {"binary_data": True}}]
        head = json.dumps({"inputs": [source], "outputs": outputs}).encode()
        body = head + pixels(self).numpy().tobytes()
        return [request_bytes("/v2/models/m/infer", body, Inference_Header_Content_Length=str(len(head)))]


def pixels(bench: Bench) -> torch.Tensor:
    """A batch of the images as the network sees them."""
    opened = (Image.open(io.BytesIO(bench.images[index % len(bench.images)])) for index in range(BATCH))
    return torch.stack([bench.classifier.preprocess.apply(image.convert("RGB")) for image in opened])


def in_process(bench: Bench, kind: str, seconds: float) -> float:
    """Images/s of the classifier itself."""
    batch, done, start = pixels(bench), 0, time.monotonic()
    while time.monotonic() - start < seconds:
        if kind == "pixels":
            bench.classifier.logits(batch)
        else:
            bench.classifier.predict([bench.images[(done + i) % len(bench.images)] for i in range(BATCH)])
        done += BATCH
    return done / (time.monotonic() - start)


@contextlib.contextmanager
def litserving(bench: Bench) -> Iterator[int]:
    """LitServe around the same classifier; its port."""
    script = Path("/tmp") / f"litserve_{os.getpid()}.py"
    script.write_text(LITSERVE)
    process = subprocess.Popen([sys.executable, str(script), bench.bundle, "8977"], start_new_session=True)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                tally = asyncio.run(closed_loop(8977, [request_bytes("/predict", bench.images[0])], 0.3, 1))
                if tally.count(200):
                    break
            time.sleep(0.2)
        yield 8977
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        script.unlink()


def throughput(bench: Bench, litserve: bool) -> list[dict[str, Any]]:
    """Rows of images/s, engines in turns; `ratio` is our time divided by that engine's."""
    found: dict[str, list[float]] = {}
    infer, classify = bench.infer_requests(), bench.classify_requests()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(bench.bundle, *bench.threads))
        other = stack.enter_context(litserving(bench)) if litserve else None
        for _ in range(bench.rounds):
            for kind, requests, images in (("pixels", infer, BATCH), ("files", classify, 1)):
                clients = 3 if kind == "pixels" else CLIENTS
                found.setdefault(f"in process, {kind}", []).append(in_process(bench, kind, bench.seconds))
                tally = asyncio.run(closed_loop(server.port, requests, bench.seconds, clients))
                found.setdefault(f"served, {kind}", []).append(images * tally.count(200) / bench.seconds)
            if other is not None:
                lit = [request_bytes("/predict", image) for image in bench.images]
                tally = asyncio.run(closed_loop(other, lit, bench.seconds))
                found.setdefault("LitServe, files", []).append(tally.count(200) / bench.seconds)
    bench.peak = statistics.median(found["served, files"])
    rows = []
    for engine, values in found.items():
        ours = statistics.median(found[f"served, {engine.rpartition(', ')[2]}"])
        theirs = statistics.median(values)
        row = {"model": bench.classifier.bundle.network, "batch": BATCH, "precision": "float32"}
        rows.append(
            {
                **row,
                "engine": engine,
                "median_ms": 1000 / theirs,
                "images_per_s": theirs,
                "ratio": theirs / ours,
            }
        )
    return rows


def find_peak(bench: Bench, server: Server) -> float:
    """Images/s without pause; measured once."""
    if not bench.peak:
        tally = asyncio.run(closed_loop(server.port, bench.classify_requests(), bench.seconds))
        bench.peak = tally.count(200) / bench.seconds
    return bench.peak


def latency(bench: Bench) -> dict[str, Any]:
    """Time to an answer at 70% of the peak."""
    with serving(bench.bundle, *bench.threads) as server:
        rate = 0.7 * find_peak(bench, server)
        tally = asyncio.run(open_loop(server.port, bench.classify_requests(), rate, 3 * bench.seconds))
    p50, p99 = tally.quantile_ms(200, 0.5), tally.quantile_ms(200, 0.99)
    return {"rate": rate, "answers": tally.count(200), "p50_ms": p50, "p99_ms": p99, "p99_by_p50": p99 / p50}


def overload(bench: Bench) -> list[dict[str, Any]]:
    """What is left at several times the peak."""
    rows = []
    with serving(bench.bundle, *bench.threads) as server:
        peak = find_peak(bench, server)
        for times in (2, 5, 10):
            before = server.resident_bytes()
            requests = bench.classify_requests()
            tally = asyncio.run(open_loop(server.port, requests, times * peak, bench.seconds))
            rows.append(
                {
                    "times": times,
                    "goodput_share": tally.count(200) / bench.seconds / peak,
                    "refused": tally.count(503),
                    "refused_p50_ms": tally.quantile_ms(503, 0.5),
                    "refused_p99_ms": tally.quantile_ms(503, 0.99),
                    "other": tally.lost + sum(tally.count(s) for s in tally.seconds if s not in (200, 503)),
                    "memory_growth_bytes": server.resident_bytes() - before,
                }
            )
    return rows


def sigterm(bench: Bench) -> dict[str, Any]:
    """Servers told to stop under load."""
    lost, answered, codes = 0, 0, set()
    for trial in range(bench.trials):
        with serving(bench.bundle, *bench.threads, "--drain", "0.5") as server:
            stop = threading.Timer(0.5 + 0.01 * trial, server.stop)
            stop.start()
            tally = asyncio.run(closed_loop(server.port, bench.classify_requests(), 3.0))
            stop.join()
        lost, answered = lost + tally.lost, answered + tally.count(200)
        codes |= tally.seconds.keys()
    return {"trials": bench.trials, "answered": answered, "lost": lost, "codes": sorted(codes)}


def kill(bench: Bench) -> dict[str, Any]:
    """The inference process killed under load, again and again."""
    back: list[float] = []
    with serving(bench.bundle, *bench.threads) as server:

        def kill_again() -> None:
            for trial in range(bench.trials):
                time.sleep(0.5)
                os.kill(server.worker(), signal.SIGKILL)
                start = time.monotonic()
                while server.events["inference process is back"] <= trial:
                    time.sleep(0.01)
                back.append(time.monotonic() - start)

        thread = threading.Thread(target=kill_again)
        thread.start()
        tally = Tally()
        while thread.is_alive():
            part = asyncio.run(closed_loop(server.port, bench.classify_requests(), 1.0))
            tally.lost += part.lost
            for status, values in part.seconds.items():
                tally.seconds.setdefault(status, []).extend(values)
    return {
        "trials": bench.trials,
        "answered": tally.count(200),
        "failed": tally.count(503),
        "failed_a_trial": tally.count(503) / bench.trials,
        "lost": tally.lost,
        "back_max_s": max(back),
        "back_median_s": statistics.median(back),
    }


def soak(bench: Bench) -> dict[str, Any]:
    """A long run at 70% of the peak."""
    with serving(bench.bundle, *bench.threads) as server:
        rate, requests = 0.7 * find_peak(bench, server), bench.classify_requests()
        tenths = []
        asyncio.run(open_loop(server.port, requests, rate, bench.seconds / 10))  # caches fill
        for _ in range(10):
            tally = asyncio.run(open_loop(server.port, requests, rate, bench.seconds / 10))
            tenths.append((server.resident_bytes(), tally.quantile_ms(200, 0.99), tally))
    first, last = tenths[0], tenths[-1]
    return {
        "seconds": bench.seconds,
        "answered": sum(tally.count(200) for _, _, tally in tenths),
        "memory_growth_bytes": last[0] - first[0],
        "p99_first_ms": first[1],
        "p99_last_ms": last[1],
    }


def main() -> None:
    """Measure what is asked for, print it, and write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("--images", type=Path, help="folder of JPEG files; without it drawn ones, 400 x 300")
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--seconds", type=float, default=20.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--threads", type=int, help="threads of the network, here and in the server")
    parser.add_argument(
        "--litserve", action="store_true", help="compare with LitServe, which must be installed"
    )
    parser.add_argument("--quick", action="store_true", help="2 seconds, 1 round, 2 trials")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds, options.trials = 2.0, 1, 2
    if options.threads:
        torch.set_num_threads(options.threads)
    threads = ("--threads", str(options.threads)) if options.threads else ()
    images = read_or_draw(options.images)
    classifier = load(options.bundle, "cpu")
    bench = Bench(
        options.bundle, classifier, images, options.seconds, options.rounds, options.trials, threads
    )
    parts = {
        "throughput": lambda: throughput(bench, options.litserve),
        "latency": lambda: latency(bench),
        "overload": lambda: overload(bench),
        "sigterm": lambda: sigterm(bench),
        "kill": lambda: kill(bench),
        "soak": lambda: soak(bench),
    }
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    content: dict[str, Any] = {"machine": machine, "versions": f"torch {torch.__version__}"}
    for part in options.only or PARTS:
        content["rows" if part == "throughput" else part] = found = parts[part]()
        print(json.dumps({part: found}), flush=True)
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_or_draw(folder: Path | None) -> list[bytes]:
    """JPEG files to ask about."""
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


if __name__ == "__main__":
    main()
