"""Training speed: one step of our `googlenet_tv` against torchvision's own model on the same batch.

    python benchmarks/training.py --json training.json
    python benchmarks/training.py --profile

Every engine does the same work: forward with both auxiliary heads, loss main + 0.3 x each head, backward and
a step of SGD with momentum. Each engine lives in a process of its own, because how a C library manages memory
holds for a whole process and ours changes it (`train/native/memory.py`); they take turns within each round,
so that a noisy machine disturbs all alike. The speed-up is the median over the rounds of (its time / our
time), the ratio in the JSON its inverse. "Without kernels" is our network in plain PyTorch, and "memory kept"
gives torchvision's the same memory management as ours. `--profile` shows where the time of our step goes.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from rich.console import Console
from rich.table import Table
from torch import nn

from inception.nets.registry import build_network
from inception.runtime.device import autocast, choose_device, choose_precision, place
from inception.runtime.timing import machine
from inception.train.config import TrainConfig
from inception.train.losses import training_loss
from inception.train.native.fused import fuse
from inception.train.native.memory import kept_memory
from inception.train.optimizer import make_optimizer

Step = Callable[[], float]
LEARNING_RATE, AUX_WEIGHT = 0.01, 0.3


def our_step(images: torch.Tensor, targets: torch.Tensor, device: torch.device, kernels: bool = True) -> Step:
    """The step of `inception train`, on torchvision's variant of the network, in its automatic precision."""
    network = place(build_network("googlenet_tv"), device).train()
    if device.type == "cpu" and kernels:
        fuse(network)
    config = TrainConfig(learning_rate=LEARNING_RATE, weight_decay=0.0, optimizer="sgd")
    optimizer = make_optimizer(network, config)
    precision = choose_precision("auto", device)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> float:
        with autocast(device, precision):
            output = network(images)
        loss = training_loss(output, targets, 0.0, AUX_WEIGHT)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def torchvision_step(
    images: torch.Tensor, targets: torch.Tensor, device: torch.device, bfloat16: bool, compiled: bool = False
) -> Step:
    """torchvision's model in eager float32, or in bfloat16 channels last, perhaps compiled."""
    model: nn.Module = torchvision.models.googlenet(init_weights=False).to(device).train()
    if bfloat16:
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True)
    forward = torch.compile(model) if compiled else model

    def step() -> float:
        with autocast(device, "bfloat16" if bfloat16 else "float32"):
            output = forward(images)
        heads = (output.aux_logits1, output.aux_logits2)
        loss = F.cross_entropy(output.logits.float(), targets)
        loss = loss + sum(AUX_WEIGHT * F.cross_entropy(head.float(), targets) for head in heads)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def batch_of(options: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and targets, the same in every process."""
    torch.manual_seed(0)
    device = choose_device(options.device)
    images = torch.randn(options.batch, 3, 224, 224, device=device)
    return images, torch.randint(0, 1000, (options.batch,), device=device)


def serve_steps(pipe: Connection, make: Callable[..., Step], options: argparse.Namespace, keep: bool) -> None:
    """In an engine's process: make a step for each message, and answer with its seconds."""
    images, targets = batch_of(options)
    step = make(images, targets, choose_device(options.device))
    with kept_memory() if keep else nullcontext():
        while pipe.recv():
            start = time.perf_counter()
            step()
            pipe.send(time.perf_counter() - start)


PARTS = {
    "convolutions, backward": ("aten::convolution_backward", "_FilteredBackward"),
    "convolutions, forward": ("aten::mkldnn_convolution", "aten::cudnn_convolution", "_Filtered"),
    "batch norm and ReLU, backward": (
        "_NormReLUBackward",
        "aten::native_batch_norm_backward",
        "aten::threshold_backward",
    ),
    "batch norm and ReLU, forward": ("_NormReLU", "aten::native_batch_norm", "aten::clamp_min_"),
    "max pools, backward": ("_MaxPoolBackward", "aten::max_pool2d_with_indices_backward"),
    "max pools, forward": ("_MaxPool", "aten::max_pool2d_with_indices"),
    "branches joined, gradients added up": ("aten::cat", "aten::add_"),
    "copies and changes of number type": ("aten::copy_",),
    "filling with zeros": ("aten::fill_", "aten::zero_"),
    "optimiser": ("aten::_fused_sgd_",),
}
"""What a step is made of: the operations of PyTorch's profiler that count as each part."""


def profiled(pipe: Connection, options: argparse.Namespace, kernels: bool) -> None:
    """In a process of its own: the milliseconds of each part of our step, sent through the pipe."""
    images, targets = batch_of(options)
    step = our_step(images, targets, choose_device(options.device), kernels)
    with kept_memory() if kernels else nullcontext():
        for _ in range(options.warmup):
            step()
        with torch.profiler.profile() as profile:
            for _ in range(options.rounds):
                step()
    own = {event.key: event.self_cpu_time_total / 1000 / options.rounds for event in profile.key_averages()}
    parts = {part: sum(own.get(name, 0.0) for name in names) for part, names in PARTS.items()}
    whole = sum(own.values())
    pipe.send({**parts, "everything else": whole - sum(parts.values()), "all": whole})


def print_profile(options: argparse.Namespace) -> None:
    """A table of where the time goes, with PyTorch's own layers and with ours."""
    context = multiprocessing.get_context("spawn")
    found: list[dict[str, float]] = []
    for kernels in (False, True):
        pipe, theirs = context.Pipe()
        context.Process(target=profiled, args=(theirs, options, kernels), daemon=True).start()
        found.append(pipe.recv())
    table = Table(title=f"our training step, batch {options.batch}, ms (torch.profiler)")
    for heading in ("part", "PyTorch's layers", "with kernels"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part in found[0]:
        table.add_row(part, *(f"{times[part]:.1f}" for times in found))
    Console(width=120).print(table)


def measure(engines: dict[str, tuple[Callable[..., Step], bool]], options: argparse.Namespace) -> dict:
    """Seconds of each engine's step in each round, all engines taking turns; processes start afresh."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name, (make, keep) in engines.items():
        pipes[name], theirs = context.Pipe()
        context.Process(target=serve_steps, args=(theirs, make, options, keep), daemon=True).start()
    times: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(options.warmup + options.rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            seconds = pipe.recv()
            if number >= options.warmup:
                times[name].append(seconds)
    for pipe in pipes.values():
        pipe.send(False)
    return times


def rows_of(times: dict[str, list[float]], batch: int) -> list[dict[str, object]]:
    """One row an engine: median time, rate, and the median and quartiles of its time over ours."""
    ours = times["inception"]
    rows = []
    for name, seconds in times.items():
        speedups = sorted(theirs / mine for theirs, mine in zip(seconds, ours, strict=True))
        median = statistics.median(seconds)
        rows.append(
            {
                "model": "googlenet_tv, training step",
                "batch": batch,
                "precision": "float32" if "float32" in name else "bfloat16",
                "engine": name,
                "median_ms": 1000 * median,
                "images_per_s": batch / median,
                "ratio": 1 / statistics.median(speedups),
                "speedup": statistics.median(speedups),
                "speedup_quartiles": [speedups[len(speedups) // 4], speedups[(3 * len(speedups)) // 4]],
                "rounds": len(seconds),
            }
        )
    return rows


def main() -> None:
    """Run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="also torchvision under torch.compile")
    parser.add_argument("--profile", action="store_true", help="where the time of our step goes, instead")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.profile:
        print_profile(options)
        return
    bfloat16 = partial(torchvision_step, bfloat16=True)
    engines: dict[str, tuple[Callable[..., Step], bool]] = {
        "inception": (our_step, True),
        "inception, without kernels": (partial(our_step, kernels=False), False),
        "torchvision float32": (partial(torchvision_step, bfloat16=False), False),
        "torchvision bfloat16 channels last": (bfloat16, False),
        "torchvision bfloat16 channels last, memory kept": (bfloat16, True),
    }
    if options.compile:
        engines["torchvision bfloat16 compiled"] = (partial(bfloat16, compiled=True), False)
    rows = rows_of(measure(engines, options), options.batch)
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    table = Table(
        title=f"training step, batch {options.batch}, {torch.get_num_threads()} threads, {versions}"
    )
    for heading in ("engine", "median ms", "images/s", "ours is faster by", "quartiles"):
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    for row in rows:
        low, high = row["speedup_quartiles"]
        table.add_row(
            row["engine"],
            f"{row['median_ms']:.1f}",
            f"{row['images_per_s']:.1f}",
            f"{row['speedup']:.2f}x",
            f"{low:.2f} to {high:.2f}",
        )
    Console(width=120).print(table)
    if options.json:
        content = {"rows": rows, "machine": machine(), "versions": versions}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
