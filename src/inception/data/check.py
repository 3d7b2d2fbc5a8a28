"""Looking a data set over before anything is trained on it: every file is read and fully decoded once."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inception.data.dataset import Dataset, Sample
from inception.data.decode import DEFAULT_MAX_PIXELS, EXTENSIONS
from inception.data.depth import depth_notes
from inception.data.likeness import PictureFacts, examine, similar_groups
from inception.data.options import ReadOptions
from inception.data.shards import damaged_shards
from inception.data.sources import open_dataset
from inception.errors import DataError, ImageError

DEFAULT_MIN_SIZE = 32
"""Shortest side below which an image counts as tiny."""

_BATCH = 1024


@dataclass(frozen=True)
class Unreadable:
    """A file that gives no image: its path, the kind of `ImageError` (or "missing"), and why."""

    path: str
    kind: str
    message: str


@dataclass(frozen=True)
class Member:
    """One image of a group of equal or similar ones."""

    path: str
    label: str
    split: str


@dataclass(frozen=True)
class Mislabelled:
    """A file whose content is another format than its extension promises."""

    path: str
    promised: str
    found: str


@dataclass(frozen=True)
class Tiny:
    """An image with a side below the minimum; sizes in pixels."""

    path: str
    width: int
    height: int


@dataclass(frozen=True)
class Statistics:
    """Smallest, median and largest of the readable images' widths and heights, in pixels."""

    width: tuple[int, int, int]
    height: tuple[int, int, int]


Group = tuple[Member, ...]


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found.

    Attributes:
        source: where the data set is.
        images: number of images listed.
        labels: the classes.
        balance: for each split the number of images of each class, zeros included.
        unreadable: files that give no image; those cut short have kind "truncated".
        incomplete: JPEG files that lack data, in whose place decoders put grey.
        duplicates: groups of images with equal pixels.
        leakage: those of `duplicates` that are in more than one split.
        conflicts: those of `duplicates` that have more than one label.
        near_duplicates: groups of images that look the same but differ in pixels, apart from `duplicates`.
        near_leakage: those of `near_duplicates` that are in more than one split.
        tiny: images with a side below the minimum.
        mislabelled: files whose content is another format than their extension promises.
        strays: files that are no part of the data set.
        empty_folders: folders without any file, perhaps a class that is missing.
        notes: how the source was read, where that could have been otherwise.
        left_out: images of the source that are not used: reason -> their paths.
        absent: classes without images in the split that evaluation uses, unless that split was drawn by us.
        sizes: statistics of widths and heights; None if nothing could be read.
        modes: number of files of each Pillow mode, such as RGB, L (grey), P (palette), CMYK, I;16.
        formats: number of files of each format.
    """

    source: str
    images: int
    labels: tuple[str, ...]
    balance: dict[str, dict[str, int]]
    unreadable: tuple[Unreadable, ...]
    incomplete: tuple[str, ...]
    duplicates: tuple[Group, ...]
    leakage: tuple[Group, ...]
    conflicts: tuple[Group, ...]
    near_duplicates: tuple[Group, ...]
    near_leakage: tuple[Group, ...]
    tiny: tuple[Tiny, ...]
    mislabelled: tuple[Mislabelled, ...]
    strays: tuple[str, ...]
    empty_folders: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]
    absent: tuple[str, ...]
    sizes: Statistics | None
    modes: dict[str, int]
    formats: dict[str, int]

    @property
    def problems(self) -> tuple[str, ...]:
        """What should be put right, one sentence each; near duplicates, strays and imbalance are none."""
        counted = (
            (len(self.unreadable), "unreadable file(s)"),
            (len(self.incomplete), "JPEG file(s) that lack data and are filled up with grey"),
            (len(self.leakage), "image(s) that are in more than one split"),
            (len(self.conflicts), "image(s) with more than one label"),
            (len(self.duplicates), "image(s) that occur more than once"),
            (len(self.mislabelled), "file(s) whose extension belies their format"),
            (len(self.tiny), "tiny image(s)"),
            (len(self.absent), "class(es) without images in the evaluation split"),
            (len(self.empty_folders), "empty folder(s)"),
            *((len(paths), f"image(s) left out: {reason}") for reason, paths in self.left_out.items()),
        )
        return tuple(f"{count} {what}." for count, what in counted if count)

    @property
    def ok(self) -> bool:
        """Whether there is nothing to put right."""
        return not self.problems

    @property
    def imbalance(self) -> float | None:
        """Images of the largest class divided by those of the smallest, in train (else over all splits)."""
        counts: Counter[str] = Counter()
        for split in ["train"] if "train" in self.balance else self.balance:
            counts.update(self.balance[split])
        smallest = min(counts.values(), default=0)
        return max(counts.values()) / smallest if smallest else None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dictionaries, lists and numbers, ready for JSON."""
        summary = {"ok": self.ok, "problems": list(self.problems), "imbalance": self.imbalance}
        return summary | asdict(self)


def check_dataset(
    spec: str | Path | Dataset,
    *,
    options: ReadOptions | None = None,
    data_root: Path | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    min_size: int = DEFAULT_MIN_SIZE,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    bits: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Read and decode every image of a data set, and report what is wrong with it.

    Args:
        spec: a data set, or what `open_dataset` takes, with its other arguments.
        min_size: shortest side in pixels below which an image counts as tiny.
        max_pixels, bits: as for `decode_image`.
        workers: threads; default one for each CPU.
        progress: called from this thread with the images done and the images in all.

    Raises:
        UsageError, DataError: if `spec` cannot be opened at all; single bad files are part of the report.
    """
    if not isinstance(spec, Dataset):
        spec = open_dataset(spec, options=options, data_root=data_root, val_fraction=val_fraction, seed=seed)
    dataset = spec
    facts: dict[str, PictureFacts] = {}
    unreadable = [Unreadable(shard, "corrupt", why) for shard, why in damaged_shards(dataset.store)]
    for done, (sample, result) in enumerate(_examined(dataset, max_pixels, bits, workers), start=1):
        if isinstance(result, Unreadable):
            unreadable.append(result)
        else:
            facts[sample.path] = result
        if progress is not None:
            progress(done, len(dataset.samples))
    return _report(dataset, facts, tuple(unreadable), min_size, bits)


def _examined(
    dataset: Dataset, max_pixels: int, bits: int, workers: int | None
) -> Iterator[tuple[Sample, PictureFacts | Unreadable]]:
    def look(sample: Sample) -> PictureFacts | Unreadable:
        try:
            return examine(dataset.read(sample), name=sample.path, max_pixels=max_pixels, bits=bits)
        except ImageError as error:
            return Unreadable(sample.path, error.kind, str(error))
        except DataError as error:
            return Unreadable(sample.path, "missing", str(error))

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in range(0, len(dataset.samples), _BATCH):
            batch = dataset.samples[start : start + _BATCH]
            yield from zip(batch, pool.map(look, batch), strict=True)


def _report(
    dataset: Dataset,
    facts: dict[str, PictureFacts],
    unreadable: tuple[Unreadable, ...],
    min_size: int,
    bits: int,
) -> CheckReport:
    members = {
        sample.path: Member(sample.path, "; ".join(dataset.names_of(sample)), sample.split)
        for sample in dataset.samples
    }
    duplicates = _grouped(members, ((fact.pixels, path) for path, fact in facts.items()))
    first = {fact.pixels: path for path, fact in reversed(facts.items())}
    distinct = {path: facts[path] for path in first.values()}
    near = tuple(tuple(members[path] for path in group) for group in similar_groups(distinct))
    return CheckReport(
        source=dataset.store.location,
        images=len(dataset.samples),
        labels=dataset.labels,
        balance=_balance(dataset),
        unreadable=unreadable,
        incomplete=tuple(path for path, fact in facts.items() if fact.filled_up),
        duplicates=duplicates,
        leakage=_across_splits(duplicates),
        conflicts=tuple(group for group in duplicates if len({member.label for member in group}) > 1),
        near_duplicates=near,
        near_leakage=_across_splits(near),
        tiny=tuple(
            Tiny(path, fact.width, fact.height)
            for path, fact in facts.items()
            if min(fact.width, fact.height) < min_size
        ),
        mislabelled=_mislabelled(facts),
        strays=tuple(name for name in dataset.strays if not name.endswith("/")),
        empty_folders=tuple(name for name in dataset.strays if name.endswith("/")),
        notes=(*dataset.notes, *_depth_notes(facts.values(), bits)),
        left_out=dict(dataset.left_out),
        absent=_absent(dataset),
        sizes=_statistics(facts.values()),
        modes=dict(Counter(fact.mode for fact in facts.values()).most_common()),
        formats=dict(Counter(fact.format for fact in facts.values()).most_common()),
    )


def _depth_notes(facts: Iterable[PictureFacts], bits: int) -> list[str]:
    deep: dict[bool, list[int]] = {False: [], True: []}
    for fact in facts:
        if fact.peak is not None:
            deep[not fact.mode.startswith("I")].append(fact.peak)
    if bits and not deep[False]:
        return [f"--bits {bits} changes nothing: no grey image is stored in 16 bits"]
    return [note for colour, peaks in deep.items() for note in depth_notes(peaks, colour, bits)]


def _balance(dataset: Dataset) -> dict[str, dict[str, int]]:
    balance = {split: dict.fromkeys(dataset.labels, 0) for split in dataset.splits}
    for sample in dataset.samples:
        for name in dataset.names_of(sample):
            balance[sample.split][name] += 1
    return balance


def _absent(dataset: Dataset) -> tuple[str, ...]:
    if dataset.automatic_split:
        return ()
    samples = dataset.split(dataset.evaluation_split())
    present = {name for sample in samples for name in dataset.names_of(sample)}
    return tuple(label for label in dataset.labels if label not in present)


def _across_splits(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    return tuple(group for group in groups if len({member.split for member in group}) > 1)


def _grouped(members: dict[str, Member], keyed: Iterable[tuple[Hashable, str]]) -> tuple[Group, ...]:
    groups: defaultdict[Hashable, list[Member]] = defaultdict(list)
    for key, path in keyed:
        groups[key].append(members[path])
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _mislabelled(facts: dict[str, PictureFacts]) -> tuple[Mislabelled, ...]:
    found = []
    for path, fact in facts.items():
        promised = EXTENSIONS.get(Path(path).suffix.lower())
        if promised is not None and promised != fact.format:
            found.append(Mislabelled(path, promised, fact.format))
    return tuple(found)


def _statistics(facts: Iterable[PictureFacts]) -> Statistics | None:
    sizes = np.array([(fact.width, fact.height) for fact in facts])
    if not sizes.size:
        return None
    columns = [sizes.min(axis=0), np.median(sizes, axis=0), sizes.max(axis=0)]
    width, height = (tuple(int(column[axis]) for column in columns) for axis in (0, 1))
    return Statistics((width[0], width[1], width[2]), (height[0], height[1], height[2]))
