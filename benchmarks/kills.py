"""Runs that are killed again and again must end with the bits of the run that nobody disturbed.

    OMP_NUM_THREADS=1 python benchmarks/kills.py --kills 200 --json kills.json
    OMP_NUM_THREADS=1 python benchmarks/kills.py --kills 20 --processes 2

A tiny network is trained on tiny images, with a checkpoint after every step. Another process sends SIGKILL:
half of the time at a random instant, half of the time at a random instant after a save (of a checkpoint or a
bundle) has begun. Each run is resumed until it ends, then compared with the undisturbed one: every tensor of
the bundle and of the last checkpoint bit by bit, and every row of metrics.jsonl but its times. New runs are
begun until there have been enough kills.

Only a kill that arrived before the save was over counts as one inside it. Processes are forked, so that
PyTorch is imported once.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch._dynamo  # what a run imports on its way is imported once, before forking
import torch.utils.tensorboard
from PIL import Image

from inception.evaluate import plots
from inception.train import loop, run
from inception.train.checkpoint import CHECKPOINT_FOLDER, list_checkpoints
from inception.train.config import TrainConfig
from inception.train.log import read_rows

TIMED = {"images_per_s", "seconds"}
PATIENCE_SECONDS = 60.0


@dataclass
class Outcome:
    """Kills so far, and what became of the runs."""

    inside_save: int = 0
    elsewhere: int = 0
    runs: int = 0
    different: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def write_images(folder: Path) -> Path:
    """Three classes of noisy colours, 12 images of 12x12 each to train on and 4 for val."""
    rng = np.random.default_rng(0)
    for label, colour in (("red", (200, 40, 40)), ("green", (40, 200, 40)), ("blue", (40, 40, 200))):
        for split, count in (("train", 12), ("val", 4)):
            place = folder / split / label
            place.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 60, (12, 12, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{index}.png")
    return folder


def announced(function: Callable[..., Any], pipe: int) -> Callable[..., Any]:
    """`function`, writing B to the pipe when it begins and E when it has ended."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        os.write(pipe, b"B")
        result = function(*arguments, **options)
        os.write(pipe, b"E")
        return result

    return wrapped


def start(config: TrainConfig, rank: int, count: int, port: int, pipe: int) -> int:
    """Fork a process that trains; its number. It exits with 0, or says what went wrong and exits with 1."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        if count > 1:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        if rank == 0:
            loop.save_checkpoint = announced(loop.save_checkpoint, pipe)  # type: ignore[attr-defined]
            run.save_bundle = announced(run.save_bundle, pipe)  # type: ignore[attr-defined]
        torch.set_num_threads(1)
        run.train_bundle(config)
        code = 0
    except BaseException as error:
        print(f"process {rank}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(code)


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_bytes(pipe: int, seconds: float) -> bytes:
    """What comes out of the pipe within so many seconds, as soon as something does."""
    ready, _, _ = select.select([pipe], [], [], seconds)
    return os.read(pipe, 4096) if ready else b""


def attempt(config: TrainConfig, count: int, rng: random.Random | None, durations: list[float]) -> str:
    """Train once, killed when `rng` says so: `ended`, `failed`, `inside` (a save) or `elsewhere`."""
    reading, writing = os.pipe()
    port = free_port()
    numbers = [start(config, rank, count, port, writing) for rank in range(count)]
    os.close(writing)
    heard = b""
    victim = numbers[0]
    if rng is not None:
        if rng.random() < 0.5:
            # The n-th save from now, at an instant that is likely to fall into it.
            wanted = rng.randint(1, 12)
            while heard.count(b"B") < wanted and (more := wait_for_bytes(reading, PATIENCE_SECONDS)):
                heard += more
            time.sleep(rng.uniform(0.0, durations[0]))
        else:
            # The whole life of a process: opening the data, stepping, measuring, saving, calibrating.
            victim = rng.choice(numbers)
            time.sleep(rng.uniform(0.0, 0.7 * durations[1]))
        os.kill(victim, signal.SIGKILL)
    statuses = {number: os.waitpid(number, 0)[1] for number in [victim]}
    others = [number for number in numbers if number != victim]
    statuses |= reap(others, PATIENCE_SECONDS if rng is None else 20.0)
    while more := wait_for_bytes(reading, 0.0):
        heard += more
    os.close(reading)
    if all(status == 0 for status in statuses.values()):
        return "ended"
    if not os.WIFSIGNALED(statuses[victim]):
        return "failed"
    return "inside" if heard.count(b"B") > heard.count(b"E") else "elsewhere"


def reap(numbers: list[int], seconds: float) -> dict[int, int]:
    """Exit statuses; processes that have not ended by then are killed, as torchrun does."""
    end = time.monotonic() + seconds
    statuses: dict[int, int] = {}
    while len(statuses) < len(numbers):
        for number in numbers:
            if number not in statuses:
                found, status = os.waitpid(number, os.WNOHANG)
                if found:
                    statuses[number] = status
                elif time.monotonic() > end:
                    os.kill(number, signal.SIGKILL)
        time.sleep(0.02)
    return statuses


def difference(ours: Path, theirs: Path) -> str:
    """What differs between two finished runs; empty when nothing does."""
    rows = [
        [{k: v for k, v in row.items() if k not in TIMED} for row in read_rows(folder / "metrics.jsonl")]
        for folder in (ours, theirs)
    ]
    if rows[0] != rows[1]:
        return "metrics.jsonl"
    last = [
        list_checkpoints(folder / CHECKPOINT_FOLDER)[0].with_suffix(".safetensors")
        for folder in (ours, theirs)
    ]
    for name, files in (
        ("bundle", [folder / "bundle" / "model.safetensors" for folder in (ours, theirs)]),
        ("checkpoint", last),
    ):
        first, second = (safetensors.torch.load_file(file) for file in files)
        if first.keys() != second.keys() or last[0].name != last[1].name:
            return f"{name}: tensors"
        for tensor, value in second.items():
            if not torch.equal(first[tensor], value):
                return f"{name}: {tensor}"
    litter = [path.name for path in ours.rglob("*") if path.name.endswith((".tmp", ".old"))]
    return f"left behind: {litter[0]}" if litter else ""


def campaign(kills: int, seed: int, count: int, folder: Path, tell: Callable[[str], None]) -> Outcome:
    """Runs, killed and resumed, until there have been so many kills."""
    rng, outcome = random.Random(seed), Outcome()
    data = write_images(folder / "data")
    plots.to_png(plots.training_curves([{"epoch": 1, "train_loss": 1.0}]))
    plain = TrainConfig(
        data=str(data),
        output=str(folder / "straight"),
        width=0.05,
        epochs=3,
        batch_size=8,
        precision="float32",
        device="cpu",
        checkpoint_steps=1,
    )
    began = time.monotonic()
    if attempt(plain, count, None, [0.0, 0.0]) != "ended":
        raise SystemExit("the undisturbed run failed")
    whole = time.monotonic() - began
    tell(f"undisturbed: {whole:.2f} s")
    while outcome.inside_save + outcome.elsewhere < kills:
        output = folder / f"run-{outcome.runs}"
        config = TrainConfig(**{**plain.to_dict(), "output": str(output), "resume": True})
        result = ""
        while result not in ("ended", "failed"):
            more = outcome.inside_save + outcome.elsewhere < kills
            result = attempt(config, count, rng if more else None, [0.02, whole])
            outcome.inside_save += result == "inside"
            outcome.elsewhere += result == "elsewhere"
        outcome.runs += 1
        if result == "failed":
            outcome.failures.append(output.name)
        elif found := difference(output, folder / "straight"):
            outcome.different.append(f"{output.name}: {found}")
        tell(
            f"run {outcome.runs}: {result}; kills so far: {outcome.inside_save} inside a save, "
            f"{outcome.elsewhere} elsewhere; different: {len(outcome.different)}"
        )
        shutil.rmtree(output, ignore_errors=True)
    return outcome


def main() -> None:
    """Run, print a line a run, write the JSON; exits with 1 when anything differed or failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        outcome = campaign(
            options.kills, options.seed, options.processes, Path(folder), lambda line: print(line, flush=True)
        )
    content = {**vars(outcome), "processes": options.processes, "seed": options.seed}
    content |= {"torch": torch.__version__, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(content))
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    sys.exit(bool(outcome.different or outcome.failures))


if __name__ == "__main__":
    main()
