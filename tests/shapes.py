"""A data set that a tiny network learns in a few steps, and the run that does so."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from inception.train.config import TrainConfig

COLOURS = {"amber": (230, 170, 20), "jade": (20, 160, 90), "violet": (120, 40, 200)}
"""Classes of the shapes data set, each a colour a small network can tell after a few steps."""


def shape_picture(label: str, seed: int) -> Image.Image:
    """A disc or a bar of the class's colour on grey noise, 30 to 60 pixels a side."""
    rng = np.random.default_rng((seed, *label.encode()))
    width, height = (int(side) for side in rng.integers(30, 61, 2))
    noise = rng.integers(90, 160, (height, width, 1), dtype=np.uint8).repeat(3, axis=2)
    image = Image.fromarray(noise)
    box = (width // 6, height // 6, 5 * width // 6, 5 * height // 6)
    draw = ImageDraw.Draw(image)
    (draw.ellipse if seed % 2 else draw.rectangle)(box, fill=COLOURS[label])
    return image


def write_shapes(root: Path, splits: Mapping[str, int]) -> Path:
    """`count` pictures of every class below each of `splits`."""
    seed = 0
    for split, count in splits.items():
        for label in COLOURS:
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                shape_picture(label, seed).save(folder / f"{index:02}.png")
                seed += 1
    return root


def tiny_config(data: Path, output: Path, **options: Any) -> TrainConfig:
    """A run of a few seconds, the same on every machine."""
    defaults = {"width": 0.05, "epochs": 2, "batch_size": 8, "precision": "float32", "device": "cpu"}
    return TrainConfig(data=str(data), output=str(output), **{**defaults, **options})
