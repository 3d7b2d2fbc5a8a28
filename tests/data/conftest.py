"""Small real image files and folders of them."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def _picture_file(seed: int = 0, kind: str = "PNG", size: tuple[int, int] = (40, 36)) -> bytes:
    """An image file of random 4-pixel blocks; another seed gives an unrelated picture."""
    blocks = np.random.default_rng(seed).integers(0, 256, (9, 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def picture_file() -> Callable[..., bytes]:
    """The function `picture_file(seed, kind, size)` that makes an image file."""
    return _picture_file


MakeTree = Callable[[Iterable[str]], Path]


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Write distinct images at the given paths (other files as text) below a new folder."""

    def make(names: Iterable[str]) -> Path:
        root = tmp_path / "photos"
        for seed, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower())
            path.write_bytes(_picture_file(seed, kind) if kind else b"text")
        return root

    return make
