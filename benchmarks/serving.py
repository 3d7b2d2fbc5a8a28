"""The server beside the classifier in process and beside LitServe, under load and overload.

    python benchmarks/serving.py googlenet_5h --json serving.json
    python benchmarks/serving.py googlenet_5h --quick            # everything once, in about a minute
    python benchmarks/serving.py googlenet_5h --only overload --threads 1

throughput   images/s over HTTP (16 clients without pause) against the same classifier in process, in turns,
             for encoded images (`predict`, `/classify`) and for pixels (`logits`, binary tensors)
litserve     images/s of the same classifier behind LitServe (pip install litserve), in turns; with --eager
             BUNDLE also of that bundle's network as in LitServe's image example (eager float32, torchvision)
latency      p50 and p99 at 70% of the peak, arrivals evenly spaced and at random
overload     2, 5 and 10 times the peak: goodput, how soon the rest gets 503, the server's memory

The load comes from this process by asyncio, on the same cores; its processor time is in the tables and is not
subtracted. What must hold when processes die is in `serving_trials.py`.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from serving_load import (
    CLIENTS,
    Server,
    closed_loop,
    cpu_seconds,
    litserving,
    machine,
    open_loop,
    read_or_draw,
    request_bytes,
    serving,
)

from inception.runtime.classifier import Classifier
from inception.runtime.loading import load

PARTS = ("throughput", "litserve", "latency", "overload")
BATCH = 8


@dataclass
class Bench:
    """What all measurements share."""

    bundle: str
    classifier: Classifier
    images: list[bytes]
    seconds: float
    rounds: int
    threads: int
    eager: str | None

    @property
    def options(self) -> tuple[str, ...]:
        """Of the server."""
        return ("--threads", str(self.threads))

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


@dataclass
class Rate:
    """What was reached: images/s, and processor time an image, of all processes that take part."""

    images_per_s: float
    cpu_ms: float


def in_process(bench: Bench, kind: str, seconds: float) -> Rate:
    """The classifier itself."""
    batch, done, start, used = pixels(bench), 0, time.monotonic(), time.process_time()
    while time.monotonic() - start < seconds:
        if kind == "pixels":
            bench.classifier.logits(batch)
        else:
            bench.classifier.predict([bench.images[(done + i) % len(bench.images)] for i in range(BATCH)])
        done += BATCH
    return Rate(done / (time.monotonic() - start), 1000 * (time.process_time() - used) / done)


def served(
    port: int, pid: int, requests: list[bytes], seconds: float, clients: int = CLIENTS, images: int = 1
) -> Rate:
    """Over HTTP, by the server that is process `pid`; the clients' processor time does not count."""
    start, used = time.monotonic(), cpu_seconds(pid)
    tally = asyncio.run(closed_loop(port, requests, seconds, clients))
    if tally.lost or tally.seconds.keys() != {200}:
        raise RuntimeError(f"not every request was answered: {tally.lost} lost, {set(tally.seconds)}")
    done = images * tally.count(200)
    return Rate(done / (time.monotonic() - start), 1000 * (cpu_seconds(pid) - used) / done)


def throughput(bench: Bench) -> dict[str, Any]:
    """Served and in process in turns, for files and for pixels."""
    requests = {"pixels": bench.infer_requests(), "files": bench.classify_requests()}
    clients, images = {"pixels": 3, "files": CLIENTS}, {"pixels": BATCH, "files": 1}
    found: dict[str, list[tuple[Rate, Rate]]] = {"pixels": [], "files": []}
    with serving(bench.bundle, *bench.options) as server:
        for turn in range(bench.rounds + 1):
            for kind, pairs in found.items():
                seconds = bench.seconds if turn else 1.0  # the first warms up
                alone = in_process(bench, kind, seconds)
                arguments = (requests[kind], seconds, clients[kind], images[kind])
                over = served(server.port, server.process.pid, *arguments)
                if turn:
                    pairs.append((alone, over))
    return {kind: compared(pairs, "in_process") for kind, pairs in found.items()}


def compared(pairs: list[tuple[Rate, Rate]], other: str) -> dict[str, Any]:
    """Pairs (the other, ours): medians, and ours divided by the other's within each pair.

    `share` is of images/s, `cpu_share` of processor time an image.
    """
    shares = [ours.images_per_s / theirs.images_per_s for theirs, ours in pairs]
    cpu_shares = [ours.cpu_ms / theirs.cpu_ms for theirs, ours in pairs]
    return {
        f"{other}_images_per_s": statistics.median(theirs.images_per_s for theirs, _ in pairs),
        "served_images_per_s": statistics.median(ours.images_per_s for _, ours in pairs),
        "share": statistics.median(shares),
        "share_range": [min(shares), max(shares)],
        f"{other}_cpu_ms": statistics.median(theirs.cpu_ms for theirs, _ in pairs),
        "served_cpu_ms": statistics.median(ours.cpu_ms for _, ours in pairs),
        "cpu_share": statistics.median(cpu_shares),
        "cpu_share_range": [min(cpu_shares), max(cpu_shares)],
        "rounds": len(pairs),
    }


def litserve(bench: Bench) -> dict[str, Any]:
    """Here and behind LitServe, in turns: with the same classifier inside, and with a network in PyTorch."""
    ways = {"ours": bench.bundle} | ({"eager": bench.eager} if bench.eager else {})
    return {way: beside_litserve(bench, bundle, way) for way, bundle in ways.items()}


def beside_litserve(bench: Bench, bundle: str, way: str) -> dict[str, Any]:
    """Images/s of the bench's bundle served here and of `bundle` behind LitServe."""
    ours = bench.classify_requests()
    bodies = [json.dumps({"image": base64.b64encode(image).decode()}).encode() for image in bench.images]
    theirs = [request_bytes("/classify", body, Content_Type="application/json") for body in bodies]
    pairs = []
    other = litserving(bundle, bench.threads, way)
    with serving(bench.bundle, *bench.options) as server, other as (port, group):
        for turn in range(bench.rounds + 1):
            seconds = bench.seconds if turn else 1.0  # the first warms up
            there = served(port, group, theirs, seconds)
            os.killpg(group, signal.SIGSTOP)  # its process asks for work a thousand times a second
            here = served(server.port, server.process.pid, ours, seconds)
            os.killpg(group, signal.SIGCONT)
            if turn:
                pairs.append((there, here))
    return compared(pairs, "litserve")


def peak_of(bench: Bench, server: Server) -> float:
    """Images/s without pause."""
    requests = bench.classify_requests()
    served(server.port, server.process.pid, requests, 1.0)
    return served(server.port, server.process.pid, requests, bench.seconds).images_per_s


def latency(bench: Bench) -> dict[str, Any]:
    """Time to an answer at 70% of the peak, by the way requests arrive."""
    found: dict[str, Any] = {}
    with serving(bench.bundle, *bench.options) as server:
        rate = 0.7 * peak_of(bench, server)
        requests, seconds = bench.classify_requests(), 3 * bench.seconds
        for arrivals, even in (("even", True), ("random", False)):
            asyncio.run(open_loop(server.port, requests, rate, 2.0, even))
            tally = asyncio.run(open_loop(server.port, requests, rate, seconds, even))
            p50, p99 = tally.quantile_ms(200, 0.5), tally.quantile_ms(200, 0.99)
            answers = {"rate": rate, "answers": tally.count(200)}
            found[arrivals] = {**answers, "p50_ms": p50, "p99_ms": p99, "p99_by_p50": p99 / p50}
    return found


def overload(bench: Bench) -> list[dict[str, Any]]:
    """What is left at several times the peak, which is measured anew before each."""
    rows, requests = [], bench.classify_requests()
    with serving(bench.bundle, *bench.options) as server:
        for times in (2, 5, 10):
            peak = peak_of(bench, server)
            before, start, own = server.resident_bytes(), time.monotonic(), time.process_time()
            tally = asyncio.run(open_loop(server.port, requests, times * peak, bench.seconds))
            seconds = time.monotonic() - start
            rows.append(
                {
                    "times": times,
                    "peak": peak,
                    "asked_a_second": times * peak,
                    "sent_a_second": sum(map(len, tally.seconds.values())) / seconds,
                    "goodput_share": tally.count(200) / seconds / peak,
                    "answered_p99_ms": tally.quantile_ms(200, 0.99),
                    "refused": tally.count(503),
                    "refused_p50_ms": tally.quantile_ms(503, 0.5),
                    "refused_p99_ms": tally.quantile_ms(503, 0.99),
                    "other": tally.lost + sum(tally.count(s) for s in tally.seconds if s not in (200, 503)),
                    "memory_growth_bytes": server.resident_bytes() - before,
                    "clients_cpu_share": (time.process_time() - own) / seconds,
                }
            )
    return rows


def main() -> None:
    """Measure what is asked for, print it, and write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("--images", type=Path, help="folder of JPEG files; without it drawn ones, 400 x 300")
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="here and in the server")
    parser.add_argument("--eager", help="PyTorch bundle of the same network, for LitServe's own way")
    parser.add_argument("--quick", action="store_true", help="2 seconds, 1 round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers end with this process
    if options.quick:
        options.seconds, options.rounds = 2.0, 1
    torch.set_num_threads(options.threads)
    classifier = load(options.bundle, "cpu")
    images = read_or_draw(options.images)
    bench = Bench(
        options.bundle,
        classifier,
        images,
        options.seconds,
        options.rounds,
        options.threads,
        options.eager,
    )
    parts: dict[str, Callable[[Bench], Any]] = {
        "throughput": throughput,
        "litserve": litserve,
        "latency": latency,
        "overload": overload,
    }
    content: dict[str, Any] = {"machine": machine(options.threads), "versions": f"torch {torch.__version__}"}
    for part in options.only or PARTS:
        content[part] = found = parts[part](bench)
        print(json.dumps({part: found}), flush=True)
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
