"""Images kept as raw pixels of one shape, one after another, in plain files (CIFAR-10, the MNIST family)."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from inception.data.archives import RandomAccessFile
from inception.data.stores import missing_file


class RecordStore:
    """Raw images, each given out as the bytes of a PNG so that they are decoded like any other.

    Args:
        location: for messages.
        files: the plain files.
        records: for each name the index of its file and the offset of its first pixel.
        shape: (height, width), or (3, height, width) with the red, green and blue planes one after another.
        checksum: of the verified archive that the files came from; it stands for every image's content.
    """

    def __init__(
        self,
        location: str,
        files: tuple[Path, ...],
        records: dict[str, tuple[int, int]],
        shape: tuple[int, ...],
        checksum: str,
    ) -> None:
        self._location = location
        self._files = tuple(RandomAccessFile(path) for path in files)
        self._records = records
        self._shape = shape
        self._checksum = checksum

    @property
    def location(self) -> str:
        """Where the files are."""
        return self._location

    def names(self) -> list[str]:
        """Every image, sorted."""
        return sorted(self._records)

    def empty_folders(self) -> list[str]:
        """Always empty: there are no folders."""
        return []

    def size(self, name: str) -> int:
        """Bytes of one image's raw pixels."""
        if name not in self._records:
            raise missing_file(name, self._location)
        return math.prod(self._shape)

    def signature(self, name: str) -> str:
        """The checksum of the archive the images came from."""
        return f"{self.size(name)}:{self._checksum}"

    def read(self, name: str) -> bytes:
        """One image as a PNG file."""
        count = self.size(name)
        file, offset = self._records[name]
        pixels = np.frombuffer(self._files[file].read_at(offset, count), np.uint8).reshape(self._shape)
        return to_png(pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels)

    def head(self, name: str, count: int) -> bytes:
        """The first `count` bytes of one image's PNG file."""
        return self.read(name)[:count]


def to_png(pixels: np.ndarray) -> bytes:
    """Pixels (uint8, H x W or H x W x 3) as the bytes of a PNG file, uncompressed: equal on every machine."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
