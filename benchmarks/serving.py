"""The server beside the classifier in process, under load and overload, and its trials in full number.

    python benchmarks/serving.py googlenet_5h --json serving.json
    python benchmarks/serving.py googlenet_5h --quick            # everything once, in about a minute
    python benchmarks/serving.py googlenet_5h --only soak --seconds 3600

throughput   images/s over HTTP (16 clients without pause) against the same classifier in process, in turns,
             for encoded images (`predict`, `/classify`) and for pixels (`logits`, binary tensors)
latency      p50 and p99 at 70% of that peak, arrivals at random
overload     2, 5 and 10 times the peak: goodput, how soon the rest gets 503, the server's memory
sigterm      requests lost when a server under load is told to stop
kill         failed requests and time without answers when the inference process is killed
soak         memory and p99 in the first and the last tenth of a long run at 70% of the peak

The load comes from this process by asyncio; it takes a few per cent of one core, which is not subtracted.
"""

import argparse
import asyncio
import io
import json
import os
import platform
import signal
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from serving_load import CLIENTS, Server, Tally, closed_loop, open_loop, request_bytes, serving

from inception.runtime.classifier import Classifier
from inception.runtime.loading import load

PARTS = ("throughput", "latency", "overload", "sigterm", "kill", "soak")
BATCH = 8


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


def throughput(bench: Bench) -> list[dict[str, Any]]:
    """Rows of images/s, engines in turns; `ratio` is our time divided by that engine's."""
    found: dict[str, list[float]] = {}
    infer, classify = bench.infer_requests(), bench.classify_requests()
    with serving(bench.bundle, *bench.threads) as server:
        for _ in range(bench.rounds):
            for kind, requests, images in (("pixels", infer, BATCH), ("files", classify, 1)):
                clients = 3 if kind == "pixels" else CLIENTS
                found.setdefault(f"in process, {kind}", []).append(in_process(bench, kind, bench.seconds))
                tally = asyncio.run(closed_loop(server.port, requests, bench.seconds, clients))
                found.setdefault(f"served, {kind}", []).append(images * tally.count(200) / bench.seconds)
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
        "throughput": lambda: throughput(bench),
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
