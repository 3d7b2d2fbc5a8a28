"""What a loader keeps: finished views in memory, or decoded photographs in memory and on disk."""

import mmap
import os
import tempfile
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from inception.data.preprocess import Preprocess
from inception.errors import UsageError

Images = NDArray[np.uint8]


class Views:
    """Evaluation views of as many samples as there is room for, in one array, each where its slot says."""

    def __init__(self, samples: int, preprocess: Preprocess, limit: int) -> None:
        self.preprocess = preprocess
        shape = (preprocess.in_chans, preprocess.height, preprocess.width)
        room = min(samples, limit // int(np.prod(shape)))
        # Memory is taken as slots are filled, not here.
        self._images: Images = np.empty((room, *shape), dtype=np.uint8)
        self._slots = np.full(samples, -1, dtype=np.int64)
        self._used = 0
        self._lock = Lock()

    def gather(self, indices: NDArray[np.int64]) -> tuple[Images, NDArray[np.bool_]]:
        """Views of N samples, uint8 N x C x H x W, and which of them are kept; the others hold anything."""
        slots = self._slots[indices]
        known = slots >= 0
        if known.all():
            return self._images[slots], known
        images = np.empty((len(indices), *self._images.shape[1:]), dtype=np.uint8)
        images[known] = self._images[slots[known]]
        return images, known

    def keep(self, index: int, view: Images) -> None:
        """Keep a sample's view while there is room."""
        with self._lock:
            if self._slots[index] >= 0 or self._used == len(self._images):
                return
            slot, self._used = self._used, self._used + 1
        self._images[slot] = view
        self._slots[index] = slot  # only now: other threads read what a slot points to


class Scratch:
    """Decoded photographs in a file without a name, as many as the disk takes; it goes with the process."""

    def __init__(self, folder: Path) -> None:
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as the loader lives
        except OSError as error:
            raise UsageError(f"cannot keep photographs in {folder}: {error.strerror or error}") from error
        self._places: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._end = 0
        self._full = False
        self._lock = Lock()

    def get(self, index: int) -> Images | None:
        """A sample's photograph, uint8 H x W x 3, read from the disk as it is used; None if not kept."""
        place = self._places.get(index)
        if place is None:
            return None
        start, shape = place
        pages = mmap.mmap(self._file.fileno(), int(np.prod(shape)), access=mmap.ACCESS_READ, offset=start)
        return np.frombuffer(pages, dtype=np.uint8).reshape(shape)

    def has_room(self) -> bool:
        """Whether the disk was not full yet."""
        return not self._full

    def keep(self, index: int, pixels: Images) -> None:
        """Keep a sample's photograph, unless it is kept or the disk is full."""
        with self._lock:
            if self._full or index in self._places:
                return
            start = self._end
            self._end += -(-pixels.nbytes // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        data = np.ascontiguousarray(pixels).data.cast("B")
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._file.fileno(), data[written:], start + written)
        except OSError:  # a full disk costs speed alone: what does not fit is decoded each time
            self._full = True
            return
        self._places[index] = (start, pixels.shape)


class Kept:
    """What a loader keeps: views or photographs, whichever were asked for last.

    Args:
        limit: bytes in memory.
        folder: where photographs go that memory has no room for; None keeps no more.

    Raises UsageError when nothing can be written there.
    """

    def __init__(self, limit: int, folder: Path | None = None) -> None:
        self.limit = limit
        self._photos: dict[int, Images] = {}
        self._bytes = 0
        self._views: Views | None = None
        self._scratch = Scratch(folder) if folder else None
        self._lock = Lock()

    def views(self, samples: int, preprocess: Preprocess) -> Views:
        """The views under `preprocess`; photographs in memory and other views are given up."""
        if self._views is None or self._views.preprocess != preprocess:
            self._photos, self._bytes = {}, 0
            self._views = Views(samples, preprocess, self.limit)
        return self._views

    def photo(self, index: int) -> Images | None:
        """A sample's decoded photograph, uint8 H x W x 3, if it is kept; views are given up."""
        self._views = None
        pixels = self._photos.get(index)
        return self._scratch.get(index) if pixels is None and self._scratch else pixels

    def has_room(self, size: tuple[int, int]) -> bool:
        """Whether a photograph of this width and height could be kept."""
        in_memory = self._bytes + 3 * size[0] * size[1] <= self.limit
        return in_memory or (self._scratch is not None and self._scratch.has_room())

    def keep_photo(self, index: int, pixels: Images) -> None:
        """Keep a sample's photograph (uint8 H x W x 3) if there is room."""
        with self._lock:
            if index in self._photos:
                return
            if self._bytes + pixels.nbytes <= self.limit:
                self._bytes += pixels.nbytes
                self._photos[index] = pixels
                return
        if self._scratch is not None:
            self._scratch.keep(index, pixels)
