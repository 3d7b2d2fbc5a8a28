"""Training by one and by two processes of this machine; and the arithmetic for many GPUs.

    python benchmarks/scaling.py --json scaling.json
    python benchmarks/scaling.py --arithmetic --gpus 1 8 64 512

The first trains the same network on the same generated images, in the same batches, by `inception train`: in
one process with one thread, in one with two threads, and in two processes (torchrun, gloo) with one thread
each, in turns. The losses must agree. The second is a model (`inception.train.scaling`), no measurement: each
of its assumptions is an option.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from inception.data.sharding import write_shards
from inception.data.sources import open_dataset
from inception.runtime.timing import machine
from inception.train.scaling import Cluster, StepTimes, step_times, work_of

CONFIGURATIONS = {
    "1 process, 1 thread": (1, 1),
    "1 process, 2 threads": (1, 2),
    "2 processes, 1 thread each": (2, 1),
}
CLASSES = 4
TOLERANCE = 1e-2
"""Relative, of an epoch's mean training loss: sums are taken in another order, in float32, and batch norms
make much of little. Another number of threads alone makes as much difference; that row is the control."""


def write_images(folder: Path, count: int, side: int) -> Path:
    """Noise with a colour for each class, as tar shards of JPEG files."""
    rng = np.random.default_rng(0)
    for index in range(count):
        label = index % CLASSES
        low = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        low[..., label % 3] = 60 * label
        path = folder / "images" / "train" / f"class{label}" / f"{index:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(low).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
    write_shards(open_dataset(folder / "images", val_fraction=0), folder / "shards", shard_images=64)
    return folder / "shards"


def train(data: Path, output: Path, processes: int, threads: int, options: argparse.Namespace) -> list[dict]:
    """The rows of metrics.jsonl of one run."""
    command = ["train", str(data), "--output", str(output), "--device", "cpu", "--val-fraction", "0"]
    command += ["--model", options.model, "--image-size", str(options.image_size)]
    command += ["--batch-size", str(options.batch), "--epochs", str(options.epochs)]
    command += ["--optimizer", "sgd", "--learning-rate", "0.002", "--dropout", "0", "--workers", "1"]
    command += ["--precision", options.precision, "--checkpoint-seconds", "3600"]
    command += ["--batch-norm-across", options.batch_norm_across]
    start = [sys.executable, "-m", "inception"]
    if processes > 1:
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        start = [sys.executable, *run, "-m", "inception"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([*start, *command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr[-3000:])
    text = (output / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def measure(options: argparse.Namespace) -> dict:
    """Every configuration in turns; the first epoch of a run warms up and is not timed."""
    rates: dict[str, list[float]] = {name: [] for name in CONFIGURATIONS}
    losses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_images(folder, options.images, options.image_size)
        for turn in range(options.rounds):
            for index, (configuration, (processes, threads)) in enumerate(CONFIGURATIONS.items()):
                rows = train(data, folder / f"run-{turn}-{index}", processes, threads, options)
                rates[configuration] += [row["images_per_s"] for row in rows[1:]]
                losses[configuration] = [row["train_loss"] for row in rows]
                print(turn, configuration, rates[configuration], losses[configuration], file=sys.stderr)
    base = losses["1 process, 1 thread"]
    rows = [
        {
            "configuration": name,
            "images_per_s": statistics.median(values),
            "slowest": min(values),
            "fastest": max(values),
            "speedup": statistics.median(values) / statistics.median(rates["1 process, 1 thread"]),
            "train_loss": losses[name],
            "loss_difference": max(abs(a - b) / b for a, b in zip(losses[name], base, strict=True)),
        }
        for name, values in rates.items()
    ]
    asked = {key: value for key, value in vars(options).items() if key in ("model", "precision", "batch")}
    asked |= {key: getattr(options, key) for key in ("image_size", "images", "epochs", "rounds")}
    return {
        "rows": rows,
        "tolerance": TOLERANCE,
        "losses_agree": all(row["loss_difference"] <= TOLERANCE for row in rows),
        "options": {**asked, "batch_norm_across": options.batch_norm_across},
        "machine": machine(),
        "torch": torch.__version__,
    }


def print_measured(result: dict) -> None:
    """The rows as a table."""
    words = ", ".join(f"{name} {value}" for name, value in result["options"].items())
    table = Table(title=f"training ({words})", title_justify="left")
    for heading in ("", "images/s", "slowest to fastest", "speed-up", "largest loss difference"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in result["rows"]:
        table.add_row(
            row["configuration"],
            f"{row['images_per_s']:.1f}",
            f"{row['slowest']:.1f} to {row['fastest']:.1f}",
            f"{row['speedup']:.2f}x",
            f"{row['loss_difference']:.1e}",
        )
    Console(width=140).print(table)


def computed(options: argparse.Namespace) -> list[StepTimes]:
    """A row for each number of GPUs."""
    work = work_of(options.model, options.image_size)
    cluster = Cluster(**{item.name: getattr(options, item.name) for item in dataclasses.fields(Cluster)})
    shared = options.batch_norm_across == "all"
    return [
        step_times(work, cluster, gpus, options.global_batch or gpus * options.batch_per_gpu, shared)
        for gpus in options.gpus
    ]


def markdown(rows: list[StepTimes]) -> list[str]:
    """The table of docs/scaling.md."""
    headings = ["GPUs", "batch", "computing", "norms", "gradients (not hidden)", "decoding", "reading"]
    headings += ["images/s", "of linear", "limited by"]
    lines = [f"| {' | '.join(headings)} |", "|" + "--:|" * (len(headings) - 1) + "---|"]
    alone = rows[0].images_per_s / rows[0].devices
    for row in rows:
        parts = [row.computing, row.norms]
        cells = [f"{1000 * value:.1f} ms" for value in parts]
        cells.append(f"{1000 * row.gradients:.1f} ({1000 * row.exposed:.1f}) ms")
        cells += [f"{1000 * value:.1f} ms" for value in (row.decoding, row.reading)]
        share = row.images_per_s / (alone * row.devices)
        cells += [f"{row.images_per_s:,.0f}", f"{100 * share:.0f}%", row.limit]
        lines.append("| " + " | ".join([f"{row.devices:,}", f"{row.batch:,}", *cells]) + " |")
    return lines


def parser() -> argparse.ArgumentParser:
    """All options; those of the arithmetic are the fields of `Cluster`."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="googlenet_bn")
    made.add_argument("--image-size", type=int, help="default 96, for the arithmetic 224")
    made.add_argument("--batch-norm-across", choices=("all", "each"), default="all")
    made.add_argument("--json", type=Path)
    run = made.add_argument_group("measurement")
    run.add_argument("--precision", default="float32")
    run.add_argument("--batch", type=int, default=32, help="images a step, of all processes together")
    run.add_argument("--images", type=int, default=128)
    run.add_argument("--epochs", type=int, default=3)
    run.add_argument("--rounds", type=int, default=3)
    model = made.add_argument_group("arithmetic")
    model.add_argument("--arithmetic", action="store_true")
    model.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64, 512])
    model.add_argument("--batch-per-gpu", type=int, default=256)
    model.add_argument("--global-batch", type=int, help="the same for every number of GPUs")
    for item in dataclasses.fields(Cluster):
        flag = f"--{item.name.replace('_', '-')}"
        model.add_argument(
            flag, type=type(item.default), default=item.default, help=f"default {item.default:g}"
        )
    return made


def main() -> None:
    """Measure, or compute; print the table, write the JSON."""
    options = parser().parse_args()
    options.image_size = options.image_size or (224 if options.arithmetic else 96)
    if options.arithmetic:
        rows = computed(options)
        print("Computed from assumptions, not measured.")
        print("\n".join(markdown(rows)))
        derived = ("seconds", "images_per_s", "limit")
        content = [vars(row) | {name: getattr(row, name) for name in derived} for row in rows]
    else:
        content = measure(options)
        print_measured(content)
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
