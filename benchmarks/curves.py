"""Accuracy against training time of finished runs: a table, JSON, and one picture.

    inception train cifar10.zip --recipe fast --output runs/fast
    inception train cifar10.zip --recipe paper --model inception_small --output runs/paper
    python benchmarks/curves.py fast=runs/fast paper=runs/paper --picture curves.svg --json curves.json

Accuracy is that of the averaged weights on val after each epoch; time is that of the training steps alone,
with loading and checkpoints, as `metrics.jsonl` has it. A run that never reaches the target is listed with
the time it was given.
"""

import argparse
import json
import math
from pathlib import Path

import matplotlib
from rich.console import Console
from rich.table import Table

from inception.train.log import METRICS_FILE, read_rows

matplotlib.use("Agg")
import matplotlib.pyplot as plt

plt.rcParams["svg.hashsalt"] = "curves"


def curve(run: Path) -> list[tuple[float, float]]:
    """(seconds of training so far, val top-1) after every epoch."""
    rows = read_rows(run / METRICS_FILE)
    if not rows or "val_top1" not in rows[-1]:
        raise SystemExit(f"{run} is not a run with a val split that has finished an epoch")
    seconds, points = 0.0, []
    for row in rows:
        seconds += row.get("seconds", 0.0)
        points.append((seconds, row["val_top1"]))
    return points


def time_to(points: list[tuple[float, float]], target: float) -> float:
    """Seconds at the end of the first epoch that reaches `target`; infinite where none does."""
    return next((seconds for seconds, score in points if score >= target), math.inf)


def draw(curves: dict[str, list[tuple[float, float]]], target: float, path: Path) -> None:
    """One line a run, and the target."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, points in curves.items():
        axes.plot(
            [seconds / 60 for seconds, _ in points],
            [100 * score for _, score in points],
            label=name,
            marker="o",
            markersize=3,
        )
    axes.axhline(100 * target, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("top-1 on val, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)


def main() -> None:
    """Read the runs, print, write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    curves = {name: curve(Path(run)) for name, _, run in (text.partition("=") for text in options.runs)}
    first = time_to(next(iter(curves.values())), options.target)
    table = Table(
        "run", "epochs", "minutes", "last top-1", f"to {options.target:.1%}, minutes", "over the first"
    )
    report = {}
    for name, points in curves.items():
        seconds, reached = points[-1][0], time_to(points, options.target)
        least = min(reached, seconds)
        ratio = (
            f"{'' if math.isfinite(reached) else '> '}{least / first:.1f}x" if math.isfinite(first) else ""
        )
        when = f"{reached / 60:.1f}" if math.isfinite(reached) else f"not in {seconds / 60:.1f}"
        table.add_row(name, str(len(points)), f"{seconds / 60:.1f}", f"{points[-1][1]:.2%}", when, ratio)
        report[name] = {"points": points, "seconds_to_target": reached if math.isfinite(reached) else None}
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"target": options.target, "runs": report}, indent=1))
    if options.picture:
        draw(curves, options.target, options.picture)


if __name__ == "__main__":
    main()
