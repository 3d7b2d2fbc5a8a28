"""What a data set is: labels, samples with a split each, and the store that holds their bytes."""

import difflib
import hashlib
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from inception.data.split import stratified_split
from inception.data.stores import Store
from inception.errors import DataError

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What folders, files and tables call a split, in small letters."""
_SHOWN = 5
UNLABELLED = "without labels; predict takes them"
"""The reason why images of a split without classes are left out: usual in competitions, no fault."""
_LEFT_OUT_SHARE = 0.1
_SYNSET = re.compile(r"(n\d{8})(?:[ ,_:]+(.*))?")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image: its path in the store, the index of its label, and its split (train, val or test).

    In a set with several labels an image, `labels` are the indices of them all, and `label` is the rarest
    one's, or -1 where there is none.
    """

    path: str
    label: int
    split: str
    labels: tuple[int, ...] = ()


class Record(NamedTuple):
    """One image as a source lists it, before labels have indices.

    Attributes:
        path: name in the store.
        label: name of the class.
        split: train, val, test, or None where the source does not say.
        key: the path relative to the data set's own root, which the automatic split hashes.
        labels: where an image may have several: all of them, `label` being the rarest or empty.
    """

    path: str
    label: str
    split: str | None
    key: str
    labels: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All labels."""
        return (self.label,) if self.labels is None else self.labels


class Found(NamedTuple):
    """What a source holds.

    Attributes:
        records: the labelled images.
        strays: files that are no part of the data set, and empty folders (ending in `/`).
        notes: how the source was read, one sentence each, where that could have been otherwise.
        left_out: images that are not used: reason (and what to do) -> their paths.
    """

    records: list[Record]
    strays: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 - never changed


@dataclass(frozen=True)
class Dataset:
    """Labelled images in one store.

    Attributes:
        name: of the named set, folder or file.
        labels: names of the classes; a sample's label is an index into them.
        samples: every image.
        store: where the bytes are.
        strays: files that are no part of the data set, and empty folders (ending in `/`).
        fingerprint: SHA-256 over (path, size and CRC where recorded, label, split) of all samples, sorted.
            A folder records no CRC, so there a changed file of the same size goes unnoticed.
        flip_safe: whether an image means the same when mirrored (false for digits).
        automatic_split: whether all of val and test were drawn by `stratified_split`, the source having none.
        multilabel: whether an image may have several labels, or none.
        notes: how the source was read, one sentence each, where that could have been otherwise.
        left_out: images of the source that are not used: reason (and what to do) -> their paths.
    """

    name: str
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]
    store: Store
    strays: tuple[str, ...]
    fingerprint: str
    flip_safe: bool = True
    automatic_split: bool = False
    multilabel: bool = False
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have images, in the order train, val, test."""
        present = {sample.split for sample in self.samples}
        return tuple(split for split in SPLITS if split in present)

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of "train", "val" or "test" (empty if there are none), or of "all"."""
        if name == "all":
            return self.samples
        return tuple(sample for sample in self.samples if sample.split == name)

    def evaluation_split(self) -> str:
        """The name of the split that evaluation uses: "test", else "val", else "all"."""
        return next((name for name in ("test", "val") if name in self.splits), "all")

    def read(self, sample: Sample) -> bytes:
        """The bytes of a sample's file. Raises `ImageError` or `DataError`."""
        return self.store.read(sample.path)

    def left_out_lines(self) -> list[str]:
        """A line for each reason why images are not used, with their number and that of all."""
        total = len(self.samples) + sum(map(len, self.left_out.values()))
        return [f"left out: {len(paths)} of {total} ({reason})" for reason, paths in self.left_out.items()]

    def require_most(self, allowed: bool) -> None:
        """Raise `DataError` where more than a tenth of the images is left out, unless that is allowed.

        Images without labels, as competitions have them for testing, do not count.
        """
        counted = {reason: paths for reason, paths in self.left_out.items() if reason != UNLABELLED}
        missing = sum(map(len, counted.values()))
        if not allowed and missing > _LEFT_OUT_SHARE * (missing + len(self.samples)):
            lines = "; ".join(line for line in self.left_out_lines() if UNLABELLED not in line)
            raise DataError(
                f"{self.name}: more than a tenth of the images would be {lines}. "
                "Put that right, or give --allow-left-out to go on without them."
            )

    def names_of(self, sample: Sample) -> tuple[str, ...]:
        """The names of a sample's labels."""
        indices = sample.labels if self.multilabel else (sample.label,)
        return tuple(self.labels[index] for index in indices)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.multilabel:
            return (Dataset, tuple(vars(self).values()))
        # Columns instead of one object a sample: several times smaller and faster to send to a worker.
        paths = [sample.path for sample in self.samples]
        labels = array("l", (sample.label for sample in self.samples))
        splits = bytes(SPLITS.index(sample.split) for sample in self.samples)
        facts = (self.store, self.strays, self.fingerprint, self.flip_safe, self.automatic_split, False)
        rest = (*facts, self.notes, self.left_out)
        return (_restore, (self.name, self.labels, paths, labels, splits, *rest))


def _restore(
    name: str, labels: tuple[str, ...], paths: list[str], indices: "array[int]", splits: bytes, *rest: Any
) -> Dataset:
    columns = zip(paths, indices, splits, strict=True)
    return Dataset(
        name, labels, tuple(Sample(path, label, SPLITS[split]) for path, label, split in columns), *rest
    )


def natural_key(text: str) -> tuple[list[str | int], str]:
    """Sort key that puts "class2" before "class10"; otherwise plain character order."""
    parts: list[str | int] = list(re.split(r"([0-9]{1,18})", text))
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, text


def build_dataset(
    name: str,
    records: Iterable[Record],
    store: Store,
    *,
    strays: Sequence[str] = (),
    labels: Sequence[str] | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    flip_safe: bool = True,
    notes: Sequence[str] = (),
    left_out: Mapping[str, tuple[str, ...]] | None = None,
    measuring: bool = False,
) -> Dataset:
    """Turn listed images into a data set: complete the splits, number the labels, take the fingerprint.

    With no "val" and no "test", each gets `val_fraction` of every class (0 leaves all in "train"); with
    "train" and "test" alone, "val" is taken from "train"; "train" and "val" alone stay so, as do sets
    without "train". Labels are the classes of "train" (of everything if there is no "train"), in natural
    order unless `labels` fixes them. A set only for `measuring` may have any number of classes, in any split.

    Raises:
        DataError: if there are no images, only one class to train on, or classes that "train" lacks.
    """
    given = list(records)
    automatic = val_fraction > 0 and {record.split for record in given} <= {None, "train"}
    listed = _complete_splits(given, val_fraction, seed)
    if not listed:
        raise DataError(
            f"{store.location} holds no labelled images; give class folders or a CSV of path,label."
        )
    multilabel = any(record.labels is not None for record in listed)
    training = {
        name for record in listed if record.split == "train" and not measuring for name in record.names
    }
    everywhere = {name for record in listed for name in record.names}
    known = tuple(labels or sorted(training or everywhere, key=natural_key))
    if not known:
        raise DataError(f"{store.location} lists images, but no labels; give some of them labels.")
    if training and len(known) < 2 and not multilabel:
        raise DataError(
            f"{store.location} has the single class {known[0]!r}, and training needs at least two; "
            "is this the folder above the class folders?"
        )
    index = {label: position for position, label in enumerate(known)}
    unknown = sorted(everywhere - index.keys(), key=natural_key)
    if unknown:
        raise DataError(
            f"{store.location} has classes in val or test that train lacks: {_with_near(unknown, known)}; "
            "rename them or add them to train."
        )
    samples = tuple(_sample(record, index) for record in sorted(listed, key=lambda record: record.path))
    fingerprint = _fingerprint(samples, known, store, multilabel)
    more = (flip_safe, automatic, multilabel, tuple(notes), dict(left_out or {}))
    return Dataset(name, known, samples, store, tuple(strays), fingerprint, *more)


def _sample(record: Record, index: dict[str, int]) -> Sample:
    split = record.split or "train"
    if record.labels is None:
        return Sample(record.path, index[record.label], split)
    indices = tuple(sorted(index[name] for name in record.labels))
    return Sample(record.path, index.get(record.label, -1), split, indices)


def _complete_splits(records: list[Record], val_fraction: float, seed: int) -> list[Record]:
    present = {record.split for record in records}
    if present <= {None, "train"}:
        fractions = {"test": val_fraction, "val": val_fraction}
    elif present == {"train", "test"}:
        fractions = {"val": val_fraction}
    else:
        return records
    kept = [record for record in records if record.split == "test"]
    divided = [record for record in records if record.split != "test"]
    keys, labels = [record.key for record in divided], [record.label for record in divided]
    splits = stratified_split(keys, labels, fractions, seed)
    return kept + [record._replace(split=split) for record, split in zip(divided, splits, strict=True)]


def _fingerprint(
    samples: Iterable[Sample], labels: Sequence[str], store: Store, multilabel: bool = False
) -> str:
    digest = hashlib.sha256()
    for sample in sorted(samples, key=lambda sample: sample.path):
        indices = sample.labels if multilabel else (sample.label,)
        named = "\n".join(labels[index] for index in indices)
        line = (sample.path, store.signature(sample.path), named, sample.split)
        digest.update(("\0".join(line) + "\n").encode(errors="surrogateescape"))
    return digest.hexdigest()


def _with_near(unknown: Sequence[str], known: Sequence[str]) -> str:
    shown = []
    for name in unknown[:_SHOWN]:
        near = difflib.get_close_matches(name, known, n=1)
        shown.append(f"{name!r} (near {near[0]!r})" if near else repr(name))
    more = len(unknown) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def align_labels(dataset: Dataset, labels: Sequence[str]) -> Dataset:
    """The same data set with targets that are indices into `labels`, matched by name.

    A class fits a label that is equal to it, whose first word is a synset id ("n02119789 kit fox, Vulpes
    macrotis") equal to it, or whose text after that id is equal to it. Where both sides begin with a synset
    id, the ids decide. An ambiguous name fits nothing.

    Raises:
        DataError: naming the classes that fit no label, with near labels.
    """
    exact = {label: position for position, label in reversed(list(enumerate(labels)))}
    looser = _unique_aliases(labels)
    targets = [exact.get(name, looser.get(name, looser.get(_synset(name), -1))) for name in dataset.labels]
    unknown = [name for name, target in zip(dataset.labels, targets, strict=True) if target < 0]
    if unknown:
        raise DataError(
            f"{dataset.name} has classes that the {len(labels)} labels of the bundle lack: "
            f"{_with_near(unknown, [*labels, *looser])}; rename the classes or use another bundle."
        )
    samples = tuple(
        replace(
            sample,
            label=targets[sample.label] if sample.label >= 0 else -1,
            labels=tuple(sorted(targets[index] for index in sample.labels)),
        )
        for sample in dataset.samples
    )
    return replace(dataset, labels=tuple(labels), samples=samples)


def _synset(label: str) -> str:
    match = _SYNSET.fullmatch(label)
    return match[1] if match else ""


def _unique_aliases(labels: Sequence[str]) -> dict[str, int]:
    aliases: dict[str, int] = {}
    ambiguous = {""}
    for position, label in enumerate(labels):
        match = _SYNSET.fullmatch(label)
        for alias in (match[1], match[2] or "") if match else ():
            if alias in aliases:
                ambiguous.add(alias)
            aliases[alias] = position
    return {alias: position for alias, position in aliases.items() if alias not in ambiguous}
