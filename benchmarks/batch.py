"""Batch inference: `predict --output` in one process and with Ray's workers, beside the network alone.

    python benchmarks/batch.py BUNDLE --json batch.json

The images are JPEG files of 500x375, cut from scikit-learn's two photographs. The network alone computes the
same number of images, already decoded and prepared, in the same batches. All take turns.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from inception.runtime.batch import Job, answer_here, run_job
from inception.runtime.inputs import expand_inputs
from inception.runtime.loading import load
from inception.runtime.ray_engine import RayEngine
from inception.runtime.timing import machine

WIDTH, HEIGHT = 500, 375
BATCH, PART = 32, 128


def write_photos(folder: Path, count: int) -> None:
    """Cuttings of the two photographs."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(count):
        photo = photos[index % len(photos)]
        left, top = (int(rng.integers(0, room + 1)) for room in (photo.width - WIDTH, photo.height - HEIGHT))
        cutting = photo.crop((left, top, left + WIDTH, top + HEIGHT))
        cutting.save(folder / f"{index:05}.jpg", quality=90)


def network_alone(bundle: str, items: tuple, threads: int) -> float:
    """Images a second of `compute` on one prepared batch after another."""
    torch.set_num_threads(threads)
    classifier = load(bundle, "cpu")
    pixels = np.stack([classifier.preprocess.pixels(opener()) for _, opener in items[:BATCH]])
    classifier.compute(pixels)
    started = time.perf_counter()
    for _ in range(len(items) // BATCH):
        classifier.compute(pixels)
    return len(items) // BATCH * BATCH / (time.perf_counter() - started)


def written(bundle: str, items: tuple, workers: int) -> float:
    """Images a second of a whole job, the bundle's loading (and Ray's start) included; 0 workers: no Ray."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            bundle, items, Path(folder) / "answers.jsonl", batch_size=BATCH, device="cpu", part_size=PART
        )
        answered = run_job(job, RayEngine(workers) if workers else answer_here)
    return answered.computed / answered.seconds


def main() -> None:
    """Measure in turns, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="of Ray; none: without Ray")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.pop("OMP_NUM_THREADS", None)  # Ray gives its workers as many as they have processors
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        write_photos(Path(name) / "photos", options.images)
        items = tuple(expand_inputs([f"{name}/photos"], ()))
        for _ in range(options.rounds):
            alone = network_alone(options.bundle, items, options.threads)
            rates.setdefault("network alone", []).append(alone)
            for workers in (0, *options.workers):
                title = f"Ray, {workers} worker{'s' * (workers > 1)}" if workers else "predict --output"
                rates.setdefault(title, []).append(written(options.bundle, items, workers))
    base = rates["network alone"]
    rows = [
        {
            "way": way,
            "images_per_s": statistics.median(values),
            "slowest": min(values),
            "fastest": max(values),
            "of_network_alone": statistics.median(v / b for v, b in zip(values, base, strict=True)),
        }
        for way, values in rates.items()
    ]
    table = Table(title=f"{options.images} images, {options.threads} threads, {options.rounds} rounds")
    for heading in ("", "images/s", "slowest to fastest", "of the network alone"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        spread = f"{row['slowest']:.1f} to {row['fastest']:.1f}"
        table.add_row(
            row["way"], f"{row['images_per_s']:.1f}", spread, f"{100 * row['of_network_alone']:.0f}%"
        )
    Console(width=120).print(table)
    if options.json:
        content = {"rows": rows, "machine": machine()}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
