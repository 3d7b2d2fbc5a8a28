"""What must hold when servers are stopped, processes killed and bundles replaced, a hundred times under load.

    python benchmarks/serving_trials.py googlenet_5h --json trials.json
    python benchmarks/serving_trials.py googlenet_5h --only sigterm --trials 100
    python benchmarks/serving_trials.py googlenet_5h --only soak --seconds 3600

sigterm   requests lost when a server under load is told to stop
kill      failed requests and seconds without answers when the inference process is killed
reload    requests dropped when new versions of a bundle come under load; every fifth is damaged and must be
          refused while the old version goes on
soak      memory, and p99 in every tenth of a long run at 70% of the peak (or at --rate)

Tests hold the same in short (tests/serve/test_life.py). Exit code 1 when something was lost.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving_load import Server, Tally, closed_loop, machine, open_loop, read_or_draw, request_bytes, serving

from inception.weights.bundle import load_bundle, save_bundle

PARTS = ("sigterm", "kill", "reload", "soak")
MAX_BATCH = 8
_PATIENCE_SECONDS = 60.0


@dataclass
class Trials:
    """What all trials share."""

    bundle: str
    requests: list[bytes]
    trials: int
    seconds: float
    rate: float | None
    options: tuple[str, ...]
    limit: float

    def numbers(self) -> Iterator[int]:
        """Numbers of the trials, until there are enough or the time is up."""
        end = time.monotonic() + self.limit
        for number in range(self.trials):
            if time.monotonic() > end:
                return
            yield number


class Load:
    """Clients without pause, in a thread, for as long as the context lasts."""

    def __init__(self, server: Server, requests: list[bytes]) -> None:
        self.tally, self._stop = Tally(), threading.Event()

        def run() -> None:
            asyncio.run(closed_loop(server.port, requests, 1e9, tally=self.tally, stop=self._stop))

        self._thread = threading.Thread(target=run)

    def __enter__(self) -> Tally:
        self._thread.start()
        return self.tally

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()


def wait_for(server: Server, event: str, count: int) -> float:
    """Seconds until the server has logged `event` `count` times. Raises RuntimeError when it does not."""
    start = time.monotonic()
    while server.events[event] < count:
        if time.monotonic() - start > _PATIENCE_SECONDS:
            raise RuntimeError(f"{event!r} did not come: {server.events}")
        time.sleep(0.005)
    return time.monotonic() - start


def outcome(tally: Tally) -> dict[str, Any]:
    """Answers by status, and requests that were accepted and never answered."""
    return {
        "answers": {str(status): len(times) for status, times in tally.seconds.items()},
        "lost": tally.lost,
    }


def sigterm(trials: Trials) -> dict[str, Any]:
    """Servers told to stop under load, each at another moment."""
    total, drained = Tally(), []
    for trial in trials.numbers():
        with (
            serving(trials.bundle, *trials.options, "--drain", "0.5") as server,
            Load(server, trials.requests) as tally,
        ):
            time.sleep(0.5 + 0.005 * trial)
            start = time.monotonic()
            code = server.stop()
            drained.append(time.monotonic() - start)
        if code != 0:
            raise RuntimeError(f"the server ended with exit code {code}")
        total.lost += tally.lost
        for status, times in tally.seconds.items():
            total.seconds.setdefault(status, []).extend(times)
    return {"trials": len(drained), **outcome(total), "drained_max_s": max(drained)}


def kill(trials: Trials) -> dict[str, Any]:
    """The inference process killed under load, again and again."""
    back, failed = [], []
    options = (*trials.options, "--max-batch", str(MAX_BATCH))
    with serving(trials.bundle, *options) as server, Load(server, trials.requests) as tally:
        for trial in trials.numbers():
            time.sleep(0.5)
            before = tally.count(503)
            os.kill(server.worker(), signal.SIGKILL)
            back.append(wait_for(server, "inference process is back", trial + 1))
            time.sleep(0.1)
            failed.append(tally.count(503) - before)
    return {
        "trials": len(back),
        **outcome(tally),
        "max_batch": MAX_BATCH,
        "failed_max": max(failed),
        "failed_mean": statistics.mean(failed),
        "back_median_s": statistics.median(back),
        "back_max_s": max(back),
    }


def reload(trials: Trials) -> dict[str, Any]:
    """New versions under load by SIGHUP; every fifth is damaged."""
    bundle = load_bundle(trials.bundle)
    taken, refused = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        save_bundle(bundle, path)
        with serving(str(path), *trials.options) as server, Load(server, trials.requests) as tally:
            for trial in trials.numbers():
                note = {**bundle.provenance, "trial": trial}
                save_bundle(dataclasses.replace(bundle, provenance=note), path)
                if trial % 5 == 4:
                    (path / "model.safetensors").write_bytes(b"damaged")
                    refused += 1
                else:
                    taken += 1
                server.process.send_signal(signal.SIGHUP)
                # The first start counts as a model that is ready too.
                wait_for(server, "model ready", taken + 1)
                wait_for(server, "new version refused, the old one goes on", refused)
                time.sleep(0.2)
    return {"trials": taken + refused, "taken": taken, "refused": refused, **outcome(tally)}


def soak(trials: Trials) -> dict[str, Any]:
    """A long run at 70% of the peak or at the rate asked for, after a tenth in which caches fill."""
    with serving(trials.bundle, *trials.options) as server:
        tally = asyncio.run(closed_loop(server.port, trials.requests, min(10.0, trials.seconds)))
        rate = trials.rate or 0.7 * tally.count(200) / min(10.0, trials.seconds)
        asyncio.run(open_loop(server.port, trials.requests, rate, trials.seconds / 10))
        memory, total, p50, p99 = [server.resident_bytes()], Tally(), [], []
        for _ in range(10):
            tally = asyncio.run(open_loop(server.port, trials.requests, rate, trials.seconds / 10))
            memory.append(server.resident_bytes())
            p50.append(tally.quantile_ms(200, 0.5))
            p99.append(tally.quantile_ms(200, 0.99))
            total.lost += tally.lost
            for status, times in tally.seconds.items():
                total.seconds.setdefault(status, []).extend(times)
    return {
        "seconds": trials.seconds,
        "rate": rate,
        **outcome(total),
        "memory_growth_bytes": memory[-1] - memory[0],
        "memory_bytes": memory,
        "p50_ms": p50,
        "p99_ms": p99,
        "p99_drift": p99[-1] / p99[0] - 1,
    }


def main() -> int:
    """Make the trials asked for, print what came of them, and write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("--images", type=Path, help="folder of JPEG files; without it drawn ones, 400 x 300")
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds for one kind of trial")
    parser.add_argument("--seconds", type=float, default=600.0, help="of the soak")
    parser.add_argument(
        "--rate", type=float, help="requests/s of the soak, where the peak cannot be measured"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the network")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers end with this process
    requests = [request_bytes("/classify", image) for image in read_or_draw(options.images)]
    threads = ("--threads", str(options.threads))
    trials = Trials(
        options.bundle, requests, options.trials, options.seconds, options.rate, threads, options.limit
    )
    parts: dict[str, Callable[[Trials], dict[str, Any]]] = {
        "sigterm": sigterm,
        "kill": kill,
        "reload": reload,
        "soak": soak,
    }
    content: dict[str, Any] = {"machine": machine(options.threads)}
    for part in options.only or PARTS:
        content[part] = found = parts[part](trials)
        print(json.dumps({part: found}), flush=True)
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 1 if any(content[part]["lost"] for part in options.only or PARTS) else 0


if __name__ == "__main__":
    sys.exit(main())
