"""Time measured fairly: engines take turns, and the machine's own peak stands beside them."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[], object]

REST_STEP, LONGEST_REST = 0.005, 0.5
"""Seconds: how long a process is watched for whether it still computes, and how long that may go on."""


def interleaved(works: Mapping[str, Work], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each work in each round; the works take turns, so that a disturbance hits all alike.

    Before each measurement the process is left to rest and the work is run once unmeasured: the threads of
    the engine before it wait for more by spinning (ONNX Runtime's for up to a tenth of a second), which made
    OpenVINO's next run on two threads take 1.5 to 1.9 times as long.
    """
    for work in list(works.values()) * warm_up:
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            _rest()
            work()
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
    return times


def _rest() -> None:
    """Wait until no thread of this process computes, half a second at most."""
    deadline = time.perf_counter() + LONGEST_REST
    while time.perf_counter() < deadline:
        before = time.process_time()
        time.sleep(REST_STEP)
        if time.process_time() - before < REST_STEP / 5:
            return


def summary(seconds: list[float], batch: int) -> dict[str, float]:
    """Median and quartiles in milliseconds, images a second, and the number of rounds."""
    ordered = sorted(seconds)
    median = statistics.median(ordered)
    return {
        "median_ms": 1000 * median,
        "quartile_low_ms": 1000 * ordered[len(ordered) // 4],
        "quartile_high_ms": 1000 * ordered[(3 * len(ordered)) // 4],
        "images_per_s": batch / median,
        "rounds": len(ordered),
    }


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over the rounds of our time divided by theirs."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def gemm_peak(precision: str, threads: int, size: int = 1024, seconds: float = 1.0) -> float:
    """GFLOP/s of the best of several square matrix products, the machine's peak in `precision`.

    Args:
        precision: `float32` or `bfloat16` (also taken for `int8`, whose peak PyTorch cannot reach).
        threads: how many threads multiply.
        size: rows and columns.
        seconds: how long to go on.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        kind = torch.float32 if precision == "float32" else torch.bfloat16
        left, right = (torch.randn(size, size).to(kind) for _ in range(2))
        best, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end or best == float("inf"):
            started = time.perf_counter()
            torch.mm(left, right)
            best = min(best, time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return 2 * size**3 / best / 1e9


def machine() -> dict[str, Any]:
    """The processor, its cores, the load of the last minute and the versions of the engines installed."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("torch", "openvino", "onnxruntime", "nncf"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"processor": processor_name(), "load": round(load_average(), 2), "versions": versions}


def processor_name() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def load_average() -> float:
    """Processes that wanted to run in the last minute; 0 where the system does not say."""
    import os

    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def probe_images(
    shape: tuple[int, int, int], count: int, seed: int = 0
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 count x C x H x W: smooth random pictures with some noise, as photographs have."""
    generator = np.random.default_rng(seed)
    channels, height, width = shape
    grid = generator.uniform(0, 255, (count, channels, height // 16 + 2, width // 16 + 2))
    large = grid.repeat(16, axis=2).repeat(16, axis=3)[:, :, :height, :width]
    noisy = large + generator.normal(0, 12, large.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
