"""Batches of uint8 images: decoded in threads ahead of the network, in an order fixed by the seed."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inception.data.augment import Augment, augmented_view, shift_and_flip, view_generator
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
Finish = Callable[[Tensor, list[int]], Tensor]
"""(uint8 N x C x H x W, their indices) -> the same shape."""


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
        self,
        order: Sequence[int],
        batch_size: int,
        view: View,
        finish: Finish = lambda images, indices: images,
        first_position: int = 0,
    ) -> Iterator[Batch]:
        """Batches in the given order of sample indices, prepared ahead by at most three batches.

        `view` makes one image of a batch, `finish` what is better done with all of them at once.

        An unreadable image is left out of its batch (which is then smaller), counted and noted.
        """
        chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        numbered = enumerate(chunks, first_position)
        with ThreadPoolExecutor(self.workers, thread_name_prefix="load") as pool:
            # One task a batch: a task an image would spend more time waiting for Python's lock than decoding.
            queue = deque(pool.submit(self._batch, *item, view, finish) for item in islice(numbered, 3))
            while queue:
                batch = queue.popleft().result()
                if batch is not None:
                    yield batch
                queue.extend(pool.submit(self._batch, *item, view, finish) for item in islice(numbered, 1))

    def _batch(self, position: int, chunk: Sequence[int], view: View, finish: Finish) -> Batch | None:
        views = [(index, self._view(index, view)) for index in chunk]
        kept = [(index, tensor) for index, tensor in views if tensor is not None]
        if not kept:
            return None
        indices = [index for index, _ in kept]
        return Batch(
            images=finish(torch.stack([tensor for _, tensor in kept]), indices),
            targets=torch.tensor([self.samples[index].label for index in indices]),
            indices=torch.tensor(indices),
            position=position,
        )

    def _view(self, index: int, view: View) -> Tensor | None:
        try:
            return view(self.image(index), index)
        except DataError as error:
            if self.strict:
                raise DataError(f"{error}; without --strict unreadable images are skipped") from error
            self.unreadable[self.samples[index].path] = str(error)
            return None

    def evaluation_batches(self, preprocess: Preprocess, batch_size: int) -> Iterator[Batch]:
        """Every sample once, in order, as evaluation and prediction see it."""
        return self.batches(range(len(self)), batch_size, lambda image, _: preprocess.apply(image))

    def training_batches(
        self, preprocess: Preprocess, augment: Augment, batch_size: int, seed: int, epoch: int, skip: int = 0
    ) -> Iterator[Batch]:
        """Augmented views in an order drawn from (seed, epoch), without the first `skip` batches."""

        def generator(index: int) -> np.random.Generator:
            return view_generator(seed, epoch, index)

        def cut(image: Image.Image, index: int) -> Tensor:
            return augmented_view(image, preprocess, augment, generator(index))

        def whole(image: Image.Image, index: int) -> Tensor:
            return preprocess.apply(image)

        def moved(images: Tensor, indices: list[int]) -> Tensor:
            return shift_and_flip(images, augment, [generator(index) for index in indices])

        order = training_order(len(self), seed, epoch)[skip * batch_size :].tolist()
        if augment.min_area < 1.0:
            return self.batches(order, batch_size, cut, first_position=skip)
        return self.batches(order, batch_size, whole, moved, skip)


def training_order(count: int, seed: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The permutation of 0..count-1 that `epoch` visits."""
    # The last word keeps this stream apart from every view's (`view_generator` uses three words).
    return np.random.default_rng((seed, epoch, 0, 1)).permutation(count)
