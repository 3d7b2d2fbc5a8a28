"""What a checkpoint costs: seconds from the last step to the next, while everything is written and synced.

    python benchmarks/checkpoints.py --folder runs --json checkpoints.json

Each network takes one step, so that its optimiser has a memory, and is then saved again and again as a run
does it: weights checked, tensors written, checksum, fsync, rename, fsync of the folder, JSON, old ones
removed. `share` is the median as a part of the time between two checkpoints at the default of one a minute.
--folder says which disk is measured.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from inception.train.config import TrainConfig
from inception.train.interrupt import stop_on_signals
from inception.train.log import MetricsLog, Silent
from inception.train.loop import TrainingLoop
from inception.train.prepare import prepare
from inception.train.ranks import ALONE

NETWORKS = {
    "inception_small": {"recipe": "fast"},
    "googlenet_bn": {"recipe": "fast"},
    "googlenet": {"recipe": "paper", "image_size": 224},
    "inception_v3": {"recipe": "rmsprop-v3", "image_size": 299},
}
BATCH = 2


def write_images(folder: Path) -> Path:
    """Two classes of one training and one val batch of noise."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("first", "second"):
            place = folder / split / label
            place.mkdir(parents=True)
            for index in range(BATCH // 2):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


def trained(network: str, data: Path, folder: Path) -> TrainingLoop:
    """A loop after its one step, with its first checkpoint written."""
    config = TrainConfig(
        data=str(data), output=str(folder), model=network, epochs=1, batch_size=BATCH, **NETWORKS[network]
    )
    prepared = prepare(config, Silent(), ALONE)
    loop = TrainingLoop(
        prepared.network, prepared.config, prepared.setting, prepared.dataset.fingerprint, lambda *_: None
    )
    with stop_on_signals() as stop:
        log = MetricsLog(folder, -1)
        loop.run(stop, log)
        log.close()
    return loop


def measure(network: str, data: Path, folder: Path, rounds: int) -> dict[str, float]:
    """Seconds and bytes of a network's checkpoints."""
    loop = trained(network, data, folder)
    seconds = []
    for number in range(1, rounds + 1):
        loop.state.progress.batch = number  # another place in the run: the same one is not written twice
        start = time.perf_counter()
        loop.save()
        seconds.append(time.perf_counter() - start)
    [newest, *_] = sorted(loop.checkpoints.glob("*.safetensors"), reverse=True)
    lower, median, upper = statistics.quantiles(seconds, n=4)
    return {
        "parameters": sum(parameter.numel() for parameter in loop.network.parameters()),
        "bytes": newest.stat().st_size,
        "median_s": median,
        "lower_quartile_s": lower,
        "upper_quartile_s": upper,
        "largest_s": max(seconds),
        "share_at_one_a_minute": median / (loop.config.checkpoint_seconds + median),
    }


def main() -> None:
    """Print the table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default the temporary one")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    table = Table("network", "parameters", "checkpoint", "seconds", "quartiles", "largest", "share")
    found = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        data = write_images(Path(name) / "data")
        for network in options.network:
            row = measure(network, data, Path(name) / network, options.rounds)
            found[network] = row
            table.add_row(
                network,
                f"{row['parameters'] / 1e6:.1f} M",
                f"{row['bytes'] / 1e6:.0f} MB",
                f"{row['median_s']:.3f}",
                f"{row['lower_quartile_s']:.3f} to {row['upper_quartile_s']:.3f}",
                f"{row['largest_s']:.3f}",
                f"{row['share_at_one_a_minute']:.2%}",
            )
    Console().print(table)
    if options.json:
        about = {"torch": torch.__version__, "machine": platform.processor(), "rounds": options.rounds}
        options.json.write_text(json.dumps({**about, "networks": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
