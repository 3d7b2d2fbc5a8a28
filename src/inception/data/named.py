"""Data sets known by name."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from inception.data.dataset import Dataset, Record, build_dataset
from inception.data.split import stratified_split
from inception.data.stores import MemoryStore

NAMED_SETS = ("digits",)
"""Names that `open_named` accepts."""


def open_named(name: str, *, data_root: Path | None, val_fraction: float, seed: int) -> Dataset:
    """Open a named set."""
    return _digits(seed)


def _digits(seed: int) -> Dataset:
    """scikit-learn's embedded copy of the UCI handwritten digits: 1,797 grey images of 8 x 8, 70/10/20."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    names = [f"{label}/{index:04d}.png" for index, label in enumerate(digits.target)]
    files = {name: _png(image) for name, image in zip(names, pixels, strict=True)}
    splits = stratified_split(names, digits.target.tolist(), {"test": 0.2, "val": 0.1}, seed)
    records = [Record(name, name[0], split, name) for name, split in zip(names, splits, strict=True)]
    store = MemoryStore(files, "scikit-learn's digits")
    return build_dataset("digits", records, store, flip_safe=False)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
