"""Batches of uint8 images: decoded in threads ahead of the network, in an order fixed by the seed."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inception.data.augment import Augment, augmented_view, view_generator
from inception.data.decode import decode_image
from inception.data.preprocess import Preprocess
from inception.data.sources import Dataset, Sample
from inception.errors import DataError

CACHE_BYTES = 2 << 30
"""Decoded images are kept in memory up to this size."""


class Batch(NamedTuple):
    """images: uint8 N x C x H x W; targets: int64 N; indices: int64 N, positions among the samples.

    `position` counts the batches of the epoch from 0, those left out (skipped or wholly unreadable) included.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    position: int


View = Callable[[Image.Image, int], Tensor]
"""(RGB image, index of its sample) -> uint8 C x H x W."""


@dataclass
class Loader:
    """Decodes the samples of one split, keeping the decoded images while they fit in memory.

    Attributes:
        dataset, samples: where the images are.
        workers: decoding threads (Pillow decodes outside Python's lock).
        strict: raise on the first unreadable image; otherwise skip it and note it in `unreadable`.
        unreadable: path -> reason.
    """

    dataset: Dataset
    samples: Sequence[Sample]
    workers: int = 2
    strict: bool = False
    cache_bytes: int = CACHE_BYTES
    unreadable: dict[str, str] = field(default_factory=dict)
    _cache: dict[int, Image.Image] = field(default_factory=dict, repr=False)
    _cached_bytes: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> Image.Image:
        """The decoded image of sample `index`, mode RGB. Raises DataError naming the file."""
        if (cached := self._cache.get(index)) is not None:
            return cached
        sample = self.samples[index]
        image = decode_image(self.dataset.read(sample), name=sample.path)
        size = image.width * image.height * 3
        with self._lock:
            if self._cached_bytes + size <= self.cache_bytes and index not in self._cache:
                self._cached_bytes += size
                self._cache[index] = image
        return image

    def batches(
        self, order: Sequence[int], batch_size: int, view: View, first_position: int = 0
    ) -> Iterator[Batch]:
        """Batches in the given order of sample indices, prepared ahead by at most three batches.

        An unreadable image is left out of its batch (which is then smaller), counted and noted.
        """
        chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        with ThreadPoolExecutor(self.workers, thread_name_prefix="load") as pool:
            queue: list[list[Future[Tensor | None]]] = []
            submitted = 0
            for position, chunk in enumerate(chunks, first_position):
                while submitted < len(chunks) and len(queue) < 3:
                    queue.append([pool.submit(self._view, index, view) for index in chunks[submitted]])
                    submitted += 1
                views = [future.result() for future in queue.pop(0)]
                kept = [(i, v) for i, v in zip(chunk, views, strict=True) if v is not None]
                if kept:
                    yield self._collate(kept, position)

    def _view(self, index: int, view: View) -> Tensor | None:
        try:
            return view(self.image(index), index)
        except DataError as error:
            if self.strict:
                raise DataError(f"{error}; without --strict unreadable images are skipped") from error
            self.unreadable[self.samples[index].path] = str(error)
            return None

    def _collate(self, kept: list[tuple[int, Tensor]], position: int) -> Batch:
        return Batch(
            images=torch.stack([tensor for _, tensor in kept]),
            targets=torch.tensor([self.samples[index].label for index, _ in kept]),
            indices=torch.tensor([index for index, _ in kept]),
            position=position,
        )

    def evaluation_batches(self, preprocess: Preprocess, batch_size: int) -> Iterator[Batch]:
        """Every sample once, in order, as evaluation and prediction see it."""
        return self.batches(range(len(self)), batch_size, lambda image, _: preprocess.apply(image))

    def training_batches(
        self, preprocess: Preprocess, augment: Augment, batch_size: int, seed: int, epoch: int, skip: int = 0
    ) -> Iterator[Batch]:
        """Augmented views in an order drawn from (seed, epoch), without the first `skip` batches."""

        def view(image: Image.Image, index: int) -> Tensor:
            return augmented_view(image, preprocess, augment, view_generator(seed, epoch, index))

        order = training_order(len(self), seed, epoch)
        return self.batches(order[skip * batch_size :].tolist(), batch_size, view, skip)


def training_order(count: int, seed: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The permutation of 0..count-1 that `epoch` visits."""
    # The last word keeps this stream apart from every view's (`view_generator` uses three words).
    return np.random.default_rng((seed, epoch, 0, 1)).permutation(count)
