"""Time of pictures, maps and dreams with a bundle: `python benchmarks/explain.py BUNDLE [--json FILE]`.

Reports the median over runs in one process, with the threads that torch is given. The bundle should be
`googlenet_5h`; others must have the layers of GoogLeNet.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import inception
from inception.explain.attribution import METHODS, Question, attribute
from inception.explain.dream import DreamSettings, dream
from inception.explain.objectives import channel, whole_layer
from inception.explain.render import Settings, render


def median_seconds(work: Callable[[], object], runs: int) -> float:
    """Median wall time of `work` over `runs`, after nothing: first runs count, as they do for users."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=512, help="of a picture; a dream takes a 50th in each octave"
    )
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    classifier = inception.load(arguments.bundle, "cpu")
    network, preprocess = classifier.model, classifier.preprocess
    noise = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    images = preprocess.normalize(preprocess.apply(picture)[None])
    jobs: dict[str, Callable[[], object]] = {}
    for precision in ("float32", "bfloat16"):
        settings = Settings(steps=arguments.steps, precision=precision)
        for layer in ("mixed3b", "mixed4a", "mixed4d", "logits"):
            jobs[f"visualize {layer} {precision}"] = lambda layer=layer, settings=settings: render(
                network, preprocess, channel(layer, 1), settings
            )
        waking = DreamSettings(steps=max(arguments.steps // 50, 1), precision=precision)
        jobs[f"dream 1024x768 {precision}"] = lambda waking=waking: dream(
            network, preprocess, picture, whole_layer("mixed4c"), waking
        )
    for method in METHODS:
        jobs[f"explain {method}"] = lambda method=method: attribute(network, images, Question(1), method)
    rows = []
    for name, work in jobs.items():
        seconds = median_seconds(work, arguments.runs)
        rows.append({"what": name, "seconds": round(seconds, 3), "threads": arguments.threads})
        print(f"{name:32} {seconds:8.2f} s", flush=True)
    if arguments.json:
        machine = {"torch": torch.__version__, "runs": arguments.runs, "steps": arguments.steps}
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
