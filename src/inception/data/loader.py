"""Batches of uint8 images: decoded in threads ahead of the network, in an order fixed by the seed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from inception.data.augment import Augment, cut_view, move, training_reduction, view_numbers
from inception.data.decode import decode_image
from inception.data.kept import Kept
from inception.data.photo import Decoded, Photo, Reduce, open_photo
from inception.data.preprocess import Preprocess
from inception.data.shards import ShardStore, shard_order
from inception.data.sources import Dataset, Sample
from inception.errors import DataError, first_line

CACHE_BYTES = 2 << 30
"""Views, or decoded photographs, are kept in memory up to this size."""


class Batch(NamedTuple):
    """images: uint8 N x C x H x W; targets: int64 N; indices: int64 N, positions among the samples.

    With several labels an image, targets are float32 N x K of 0 and 1.

    `position` counts the batches of the epoch from 0, those left out (skipped or wholly unreadable) included.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    position: int


Images = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Make = Callable[[Numbers], tuple[Images, NDArray[np.bool_]]]
"""Numbers of N draws -> uint8 N x C x H x W, and which of them could be read."""

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
    """Decodes the samples of one split, keeping what fits in memory: small sets are decoded once.

    Attributes:
        dataset, samples: where the images are.
        workers: decoding threads (the decoders work outside Python's lock).
        strict: raise on the first unreadable image; otherwise skip it and note it in `unreadable`.
        cache_bytes: of views or photographs that are kept in memory.
        cache_folder: where photographs are kept that memory has no room for, while the process lives.
        unreadable: path -> reason.
        rank, ranks: this process's number and how many there are; each loads its share of every batch.
        balanced: draw training images so that every class is as frequent as the others.
    """

    dataset: Dataset
    samples: Sequence[Sample]
    workers: int = 2
    strict: bool = False
    cache_bytes: int = CACHE_BYTES
    cache_folder: Path | None = None
    unreadable: dict[str, str] = field(default_factory=dict)
    rank: int = 0
    ranks: int = 1
    balanced: bool = False
    _kept: Kept | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._memory = self._kept = self._kept or Kept(self.cache_bytes, self.cache_folder)
        self._labels = np.array([sample.label for sample in self.samples], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int, preprocess: Preprocess) -> Image.Image:
        """Sample `index`, decoded for `preprocess`, mode RGB. Raises DataError naming the file."""
        sample = self.samples[index]
        return decode_image(self.dataset.read(sample), bits=preprocess.bits, name=sample.path)

    def _batches(
        self, order: Numbers, batch_size: int, make: Make, first_position: int = 0
    ) -> Iterator[Batch]:
        """Batches in the given order of draws, prepared ahead by at most three batches.

        Draw n shows sample n modulo their number. Of several processes, each takes every so-manieth image of
        a batch. An unreadable image is left out of its batch (which is then smaller), counted and noted.
        Anything else that goes wrong in a thread is raised here as soon as its batch is due.
        """
        chunks = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
        numbered = enumerate((chunk[self.rank :: self.ranks] for chunk in chunks), first_position)

        def load(item: tuple[int, Numbers]) -> Batch | None:
            position, draws = item
            images, readable = make(draws)
            if not readable.any():
                return None
            if not readable.all():
                images, draws = images[readable], draws[readable]
            indices = draws % len(self)
            targets = self._targets(indices)
            return Batch(torch.from_numpy(images), targets, torch.from_numpy(indices), position)

        # One task a batch: a task an image would spend more time waiting for Python's lock than decoding.
        for batch in ahead(load, numbered, self.workers, 3):
            if batch is not None:
                yield batch

    def _targets(self, indices: Numbers) -> Tensor:
        """int64 N, or where images may have several labels float32 N x labels of 0 and 1."""
        if not self.dataset.multilabel:
            return torch.from_numpy(self._labels[indices])
        targets = torch.zeros(len(indices), len(self.dataset.labels))
        for row, index in enumerate(indices.tolist()):
            targets[row, list(self.samples[index].labels)] = 1.0
        return targets

    def _try(self, index: int, work: Callable[[], None]) -> bool:
        """Whether `work`, which needs the file of sample `index`, could read it."""
        path = self.samples[index].path
        try:
            work()
        except DataError as error:
            if self.strict:
                raise DataError(f"{error}; without --strict unreadable images are skipped") from error
            self.unreadable[path] = str(error)
            return False
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise DataError(f"a loading thread died at {path} ({reason})") from error
        return True

    def _whole(self, preprocess: Preprocess) -> Make:
        """The evaluation view of each image: decoded once, while there is room to keep it."""
        views = self._memory.views(len(self), preprocess)

        def make(draws: Numbers) -> tuple[Images, NDArray[np.bool_]]:
            indices = draws % len(self)
            images, readable = views.gather(indices)
            for place in np.flatnonzero(~readable).tolist():
                index = int(indices[place])

                def decode(place: int = place, index: int = index) -> None:
                    images[place] = preprocess.pixels(self.image(index, preprocess))

                if self._try(index, decode):
                    views.keep(index, images[place])
                    readable[place] = True
            return images, readable

        return make

    def _cuts(self, preprocess: Preprocess, augment: Augment, seed: int, epoch: int) -> Make:
        """A random cut of each image; of one that cannot be kept, no more is decoded than the cut needs."""
        reduce = training_reduction(preprocess, augment)
        shape = (preprocess.in_chans, preprocess.height, preprocess.width)

        def make(draws: Numbers) -> tuple[Images, NDArray[np.bool_]]:
            numbers = view_numbers(seed, epoch, draws, augment.alternate)
            images: Images = np.empty((len(draws), *shape), dtype=np.uint8)
            readable = np.ones(len(draws), dtype=np.bool_)
            for place, index in enumerate((draws % len(self)).tolist()):

                def cut(place: int = place, index: int = index) -> None:
                    pixels = self._memory.photo(index)
                    photo = self._photo(index, reduce, preprocess.bits) if pixels is None else Decoded(pixels)
                    cut_view(photo, preprocess, augment, numbers[place], images[place])

                readable[place] = self._try(index, cut)
            if augment.max_shift or augment.cutout:
                images = move(images, replace(augment, flip=False), numbers)
            return images, readable

        return make

    def _photo(self, index: int, reduce: Reduce | None, bits: int) -> Photo:
        """The photograph of sample `index`, decoded and kept if there is room."""
        sample = self.samples[index]
        photo = open_photo(self.dataset.read(sample), sample.path, reduce, bits)
        if not self._memory.has_room(photo.size):
            return photo
        pixels = photo.rows(photo.size[1])
        self._memory.keep_photo(index, pixels)
        return Decoded(pixels)

    def evaluation_batches(self, preprocess: Preprocess, batch_size: int) -> Iterator[Batch]:
        """Every sample once, in order, as evaluation and prediction see it."""
        return self._batches(np.arange(len(self)), batch_size, self._whole(preprocess))

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
        if self.balanced:
            drawn = balanced_order(self._labels, seed, epoch)
        else:
            drawn = self._training_order(seed, epoch)
        order = drawn[: self.batch_count(batch_size) * batch_size][skip * batch_size :]
        if augment.min_area < 1.0:
            return self._batches(order, batch_size, self._cuts(preprocess, augment, seed, epoch), skip)
        whole = self._whole(preprocess)

        def moved(draws: Numbers) -> tuple[Images, NDArray[np.bool_]]:
            images, readable = whole(draws)
            return move(images, augment, view_numbers(seed, epoch, draws, augment.alternate)), readable

        return self._batches(order, batch_size, moved, skip)

    def _training_order(self, seed: int, epoch: int) -> Numbers:
        store = self.dataset.store
        if isinstance(store, ShardStore):
            return shard_order(store, self.samples, seed, epoch)
        return training_order(len(self), seed, epoch)


def training_order(count: int, seed: int, epoch: int) -> Numbers:
    """The permutation of 0..count-1 that `epoch` visits."""
    # Views draw from `draws.uniforms`, which has nothing in common with this generator.
    return np.random.default_rng((seed, epoch, 0, 1)).permutation(count)


def balanced_order(labels: Numbers, seed: int, epoch: int) -> Numbers:
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
