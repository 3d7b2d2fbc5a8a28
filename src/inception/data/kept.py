"""What a loader keeps in memory, within one limit of bytes: finished views, or decoded photographs."""

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from inception.data.preprocess import Preprocess

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


class Kept:
    """A loader's memory. It holds views or photographs, whichever were asked for last."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._photos: dict[int, Images] = {}
        self._bytes = 0
        self._views: Views | None = None
        self._lock = Lock()

    def views(self, samples: int, preprocess: Preprocess) -> Views:
        """The views under `preprocess`; photographs and other views are given up."""
        if self._views is None or self._views.preprocess != preprocess:
            self._photos, self._bytes = {}, 0
            self._views = Views(samples, preprocess, self.limit)
        return self._views

    def photos(self) -> dict[int, Images]:
        """Decoded photographs by sample; views are given up."""
        self._views = None
        return self._photos

    def has_room(self, size: tuple[int, int]) -> bool:
        """Whether a photograph of this width and height could be kept."""
        return self._bytes + 3 * size[0] * size[1] <= self.limit

    def keep_photo(self, index: int, pixels: Images) -> None:
        """Keep a sample's photograph (uint8 H x W x 3) if there is room."""
        with self._lock:
            if index not in self._photos and self._bytes + pixels.nbytes <= self.limit:
                self._bytes += pixels.nbytes
                self._photos[index] = pixels
