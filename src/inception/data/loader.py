"""Batches of uint8 images: decoded in threads ahead of the network, in an order fixed by the seed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inception.data.augment import Augment, augmented_view, shift_and_flip, view_generator
from inception.data.decode import decode_image
from inception.data.preprocess import Preprocess
from inception.data.shards import ShardStore, shard_order
from inception.data.sources import Dataset, Sample
from inception.errors import DataError, first_line

CACHE_BYTES = 2 << 30
"""Decoded images are kept in memory up to this size."""


class Batch(NamedTuple):
    """images: uint8 N x C x H x W; targets: int64 N; indices: int64 N, positions among the samples.

    With several labels an image, targets are float32 N x K of 0 and 1.

    `position` counts the batches of the epoch from 0, those left out (skipped or wholly unreadable) included.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    position: int


View = Callable[[Image.Image, int], Tensor]
"""(RGB image, number of its draw) -> uint8 C x H x W."""
Finish = Callable[[Tensor, list[int]], Tensor]
"""(uint8 N x C x H x W, numbers of their draws) -> the same shape."""


Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, lead: int | None = None
) -> Iterator[Result]:
    """`work` of every item, in order, done in threads and at most `lead` items ahead (None: two a thread)."""
    source = iter(items)
    first = 2 * workers if lead is None else lead
    with ThreadPoolExecutor(workers, thread_name_prefix="load") as pool:
        queue = deque(pool.submit(work, item) for item in islice(source, first))
        while queue:
            yield queue.popleft().result()
            queue.extend(pool.submit(work, item) for item in islice(source, 1))


@dataclass
class Loader:
    """Decodes the samples of one split, keeping the decoded images while they fit in memory.

    Attributes:
        dataset, samples: where the images are.
        workers: decoding threads (Pillow decodes outside Python's lock).
        strict: raise on the first unreadable image; otherwise skip it and note it in `unreadable`.
        cache_bytes: of decoded images that are kept.
        unreadable: path -> reason.
        rank, ranks: this process's number and how many there are; each loads its share of every batch.
        balanced: draw training images so that every class is as frequent as the others.
    """

    dataset: Dataset
    samples: Sequence[Sample]
    workers: int = 2
    strict: bool = False
    cache_bytes: int = CACHE_BYTES
    unreadable: dict[str, str] = field(default_factory=dict)
    rank: int = 0
    ranks: int = 1
    balanced: bool = False
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
        """Batches in the given order of draws, prepared ahead by at most three batches.

        Draw n shows sample n modulo their number. `view` makes one image of a batch, `finish` what is better
        done with all of them at once. Of several processes, each takes every so-manieth image of a batch.

        An unreadable image is left out of its batch (which is then smaller), counted and noted. Anything else
        that goes wrong in a thread is raised here as soon as its batch is due.
        """
        chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        shares = [chunk[self.rank :: self.ranks] for chunk in chunks]
        numbered = enumerate(shares, first_position)

        def load(item: tuple[int, Sequence[int]]) -> Batch | None:
            return self._batch(*item, view, finish)

        # One task a batch: a task an image would spend more time waiting for Python's lock than decoding.
        for batch in ahead(load, numbered, self.workers, 3):
            if batch is not None:
                yield batch

    def _batch(self, position: int, chunk: Sequence[int], view: View, finish: Finish) -> Batch | None:
        views = [(draw, self._view(draw, view)) for draw in chunk]
        kept = [(draw, tensor) for draw, tensor in views if tensor is not None]
        if not kept:
            return None
        draws = [draw for draw, _ in kept]
        indices = [draw % len(self) for draw in draws]
        return Batch(
            images=finish(torch.stack([tensor for _, tensor in kept]), draws),
            targets=self._targets(indices),
            indices=torch.tensor(indices),
            position=position,
        )

    def _targets(self, indices: Sequence[int]) -> Tensor:
        if not self.dataset.multilabel:
            return torch.tensor([self.samples[index].label for index in indices])
        targets = torch.zeros(len(indices), len(self.dataset.labels))
        for row, index in enumerate(indices):
            targets[row, list(self.samples[index].labels)] = 1.0
        return targets

    def _view(self, draw: int, view: View) -> Tensor | None:
        index = draw % len(self)
        try:
            return view(self.image(index), draw)
        except DataError as error:
            if self.strict:
                raise DataError(f"{error}; without --strict unreadable images are skipped") from error
            self.unreadable[self.samples[index].path] = str(error)
            return None
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise DataError(f"a loading thread died at {self.samples[index].path} ({reason})") from error

    def evaluation_batches(self, preprocess: Preprocess, batch_size: int) -> Iterator[Batch]:
        """Every sample once, in order, as evaluation and prediction see it."""
        return self.batches(range(len(self)), batch_size, lambda image, _: preprocess.apply(image))

    def batch_count(self, batch_size: int) -> int:
        """Training batches an epoch: a last one with fewer images than processes is left out."""
        full, rest = divmod(len(self), batch_size)
        return full + int(rest >= self.ranks)

    def alone(self) -> "Loader":
        """The same images, all of them loaded by this process."""
        return replace(self, rank=0, ranks=1)

    def training_batches(
        self, preprocess: Preprocess, augment: Augment, batch_size: int, seed: int, epoch: int, skip: int = 0
    ) -> Iterator[Batch]:
        """Augmented views in an order drawn from (seed, epoch), without the first `skip` batches."""

        def generator(draw: int) -> np.random.Generator:
            return view_generator(seed, epoch, draw)

        def cut(image: Image.Image, draw: int) -> Tensor:
            return augmented_view(image, preprocess, augment, generator(draw))

        def whole(image: Image.Image, draw: int) -> Tensor:
            return preprocess.apply(image)

        def moved(images: Tensor, draws: list[int]) -> Tensor:
            return shift_and_flip(images, augment, [generator(draw) for draw in draws])

        if self.balanced:
            drawn = balanced_order(np.array([sample.label for sample in self.samples]), seed, epoch)
        else:
            drawn = self._training_order(seed, epoch)
        order = drawn[: self.batch_count(batch_size) * batch_size][skip * batch_size :].tolist()
        if augment.min_area < 1.0:
            return self.batches(order, batch_size, cut, first_position=skip)
        return self.batches(order, batch_size, whole, moved, skip)

    def _training_order(self, seed: int, epoch: int) -> "Order":
        store = self.dataset.store
        if isinstance(store, ShardStore):
            return shard_order(store, self.samples, seed, epoch)
        return training_order(len(self), seed, epoch)


Order = np.ndarray[tuple[int], np.dtype[np.int64]]


def training_order(count: int, seed: int, epoch: int) -> Order:
    """The permutation of 0..count-1 that `epoch` visits."""
    # The last word keeps this stream apart from every view's (`view_generator` uses three words).
    return np.random.default_rng((seed, epoch, 0, 1)).permutation(count)


def balanced_order(labels: Order, seed: int, epoch: int) -> Order:
    """As many draws as there are labels, every class (of those present) equally often, up to one.

    Within a class every image is drawn before any is drawn again. Draw n is of the image n modulo the number
    of labels; an image's second draw is numbered one such number higher, so that its view is another.
    """
    rng = np.random.default_rng((seed, epoch, 0, 1))
    classes = rng.permutation(np.unique(labels))
    wanted = np.full(len(classes), len(labels) // len(classes))
    wanted[: len(labels) % len(classes)] += 1
    draws = []
    for label, count in zip(classes, wanted, strict=True):
        members = np.flatnonzero(labels == label)
        rounds = -(-int(count) // len(members))
        drawn = [rng.permutation(members) + number * len(labels) for number in range(rounds)]
        draws.append(np.concatenate(drawn)[:count])
    return rng.permutation(np.concatenate(draws)).astype(np.int64)
