"""Tar shards in WebDataset's layout as a data set: those of `inception shard`, and those of other tools.

In that layout (https://github.com/webdataset/webdataset) the members of one sample share their name up to the
first dot: `0001.jpg`, `0001.cls`, `0001.json`. Shards without our index are read through once when opened.
"""

import json
import posixpath
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from inception.data.archives import RandomAccessFile, tar_extents
from inception.data.dataset import SPLIT_NAMES, Dataset, Record, build_dataset
from inception.data.decode import EXTENSIONS, is_visible_image
from inception.data.formats import left_out_reason
from inception.data.shards import ShardColumns, ShardStore, open_indexed, read_index, read_shards, unfinished
from inception.data.stores import FolderStore
from inception.errors import DataError
from inception.files import read_regular

CLASSES_LIMIT_BYTES = 16 << 20
CLASS_FILES = ("classnames.txt", "classes.txt", "labels.txt")
"""Where other tools leave the names of the classes, one a line, beside the shards."""

_NAME_KEYS = ("label_name", "class_name", "classname", "label", "class", "cls")
_MAX_FIELD_BYTES = 2**20
_LOOKED_AT = 8

Fields = dict[str, tuple[int, int]]
"""Extension (small letters, without the dot) -> offset and size of a sample's member."""


def find_shards(path: Path) -> tuple[Path, ...]:
    """The shards at `path`, or nothing when it is no WebDataset.

    A folder of shards has our index; or `.tar` files at its top, or in folders named as splits, and neither
    other folders nor loose images. A single `.tar` counts when its first samples have a `.cls` (or, outside
    all folders, a `.json`) beside the image.

    Raises DataError for a folder that cannot be read, or whose shards `inception shard` has not finished.
    """
    try:
        return _find_shards(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _find_shards(path: Path) -> tuple[Path, ...]:
    if path.is_file():
        return (path,) if path.suffix.lower() == ".tar" and _has_samples(path) else ()
    if not path.is_dir():
        return ()
    if unfinished(path):
        raise DataError(
            f"{path} holds unfinished shards: run the same `inception shard` again to finish them."
        )
    index = read_index(path)
    if index is not None:
        return tuple(sorted(path.glob("*.tar"))) or (path / "index.json",)
    entries = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    folders = [entry for entry in entries if entry.is_dir()]
    if any(folder.name.lower() not in SPLIT_NAMES for folder in folders):
        return ()
    inner = [tar for folder in folders for tar in sorted(folder.glob("*.tar"))]
    tars = (*(entry for entry in entries if entry.suffix.lower() == ".tar" and entry.is_file()), *inner)
    # Beside loose images a tar is a stray: this is a folder of images.
    return () if tars and any(map(is_visible_image, FolderStore(path).names())) else tars


def open_shards(
    path: Path, shards: Sequence[Path], *, val_fraction: float, seed: int, measuring: bool = False
) -> Dataset:
    """The data set of the shards that `find_shards` found at `path`.

    WebDataset's rule, that a sample's name ends at the first dot, is left for the last dot where that alone
    gives every image of the set a class; a note says so.

    Args:
        path, shards: see `find_shards`.
        val_fraction, seed, measuring: as for `build_dataset`.

    Raises DataError.
    """
    index = read_index(path) if path.is_dir() else None
    if index is not None:
        return open_indexed(path, index, val_fraction, seed, measuring)
    root = path if path.is_dir() else path.parent
    classes = _class_names(root)
    notes: list[str] = []
    try:
        found = _read(root, shards, classes)
    except _NoClassError as error:
        if not error.dotted:
            raise
        try:
            found = _read(root, shards, classes, last_dot=True)
        except DataError:
            raise error from None
        notes.append(
            f"the members' names hold dots ({posixpath.basename(found.columns.name[0])}): the last one ends "
            "a sample's name, as by WebDataset's rule, the first, the images have no class"
        )
    if found.several:
        notes.append(
            f"{found.several} samples hold more than one image: the one with fewest dots in its name is taken"
        )
    used = {record.label for record in found.records}
    return build_dataset(
        path.stem,
        found.records,
        ShardStore(path, shards, found.columns),
        labels=classes if used and used <= set(classes) else None,
        val_fraction=val_fraction,
        seed=seed,
        notes=notes,
        left_out={reason: tuple(names) for reason, names in found.left_out.items()},
        measuring=measuring,
    )


class _Read(NamedTuple):
    """What shards hold: the images, those of formats that are not read, samples with several images."""

    columns: ShardColumns
    records: list[Record]
    left_out: defaultdict[str, list[str]]
    several: int


def _read(root: Path, shards: Sequence[Path], classes: Sequence[str], last_dot: bool = False) -> _Read:
    columns, records, several = ShardColumns(), [], 0
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    for number, shard in enumerate(shards):
        where = shard.relative_to(root).as_posix()
        split = _split_of(where)
        file = RandomAccessFile(shard)
        for key, fields in _samples(shard, last_dot):
            images = sorted(filter(_is_image, fields), key=lambda extension: extension.count("."))
            if not images:
                for extension in fields:
                    if reason := left_out_reason(f"{key}.{extension}"):
                        left_out[reason].append(f"{where}/{key}.{extension}")
                continue
            label = _label(file, fields, classes)
            if label is None:
                raise _NoClassError(shard, key, images[0])
            several += len(images) > 1
            columns.add(f"{where}/{key}.{images[0]}", number, *fields[images[0]])
            records.append(Record(columns.name[-1], label, split, columns.name[-1]))
    return _Read(columns, records, left_out, several)


def open_shard_images(path: Path, shards: Sequence[Path]) -> ShardStore:
    """Every image of shards, with or without labels. Raises DataError."""
    index = read_index(path) if path.is_dir() else None
    if index is not None:
        return read_shards(path, index)[2]
    root = path if path.is_dir() else path.parent
    columns = ShardColumns()
    for number, shard in enumerate(shards):
        where = shard.relative_to(root).as_posix()
        for name, extent in tar_extents(shard).items():
            if is_visible_image(name):
                columns.add(f"{where}/{name}", number, *extent)
    return ShardStore(path, shards, columns)


def _has_samples(path: Path) -> bool:
    """Whether a tar begins with images beside which a `.cls` or, outside all folders, a `.json` is."""
    try:
        with tarfile.open(path, "r:") as archive:
            names = [entry.name for entry in islice(archive, _LOOKED_AT)]
    except (tarfile.TarError, EOFError, OSError, ValueError):
        return False
    return any(_are_samples(names, last_dot) for last_dot in (False, True))


def _are_samples(names: Sequence[str], last_dot: bool) -> bool:
    found: dict[str, set[str]] = {}
    for name in names:
        key, extension = _split_name(name, last_dot)
        found.setdefault(key, set()).add(extension)
    return any(
        any(_is_image(extension) for extension in extensions)
        and ("cls" in extensions or ("json" in extensions and "/" not in key))
        for key, extensions in found.items()
    )


def _split_name(name: str, last_dot: bool = False) -> tuple[str, str]:
    """Key and extension of a member: the base name is divided at its first dot, or at its last one."""
    folder, base = posixpath.split(name)
    key, _, extension = base.rpartition(".") if last_dot else base.partition(".")
    return posixpath.join(folder, key), extension.lower()


def _is_image(extension: str) -> bool:
    return f".{extension.rpartition('.')[2]}" in EXTENSIONS


def _samples(shard: Path, last_dot: bool) -> Iterator[tuple[str, Fields]]:
    """(key, its members) in the shard's order, hidden members left out."""
    samples: dict[str, Fields] = {}
    for name, extent in tar_extents(shard).items():
        key, extension = _split_name(name, last_dot)
        if not posixpath.basename(name).startswith("."):
            samples.setdefault(key, {})[extension] = extent
    yield from samples.items()


class _NoClassError(DataError):
    """An image without a class; `dotted`: its name holds more dots than one, which may be the cause."""

    def __init__(self, shard: Path, key: str, extension: str) -> None:
        self.dotted = "." in extension
        text = (
            f"{shard} has no class for the image {key}.{extension}: "
            "WebDataset keeps it in a .cls member, or as label in a .json member, of the same key"
        )
        if self.dotted:
            text += f", which is {key!r}, as it ends at the first dot; take the other dots out of the names"
        super().__init__(f"{text}.")


def _label(file: RandomAccessFile, fields: Fields, classes: Sequence[str]) -> str | None:
    """A name from the .json, else the number (or name) in the .cls, else the number in the .json."""
    described = _described(file, fields)
    if named := next((value for value in described if isinstance(value, str) and value.strip()), None):
        return named.strip()
    if "cls" in fields:
        text = _text(file, fields["cls"])
        if text:
            return _named(text, classes)
    number = next((value for value in described if type(value) is int), None)
    return None if number is None else _named(str(number), classes)


def _described(file: RandomAccessFile, fields: Fields) -> list[Any]:
    if "json" not in fields:
        return []
    try:
        content = json.loads(_text(file, fields["json"]))
    except (ValueError, RecursionError):
        return []
    return [content[key] for key in _NAME_KEYS if key in content] if isinstance(content, dict) else []


def _text(file: RandomAccessFile, extent: tuple[int, int]) -> str:
    offset, size = extent
    return file.read_at(offset, min(size, _MAX_FIELD_BYTES)).decode("utf-8", "replace").strip()


def _named(text: str, classes: Sequence[str]) -> str:
    if re.fullmatch(r"\d{1,9}", text) and int(text) < len(classes):
        return classes[int(text)]
    return text


def _class_names(root: Path) -> tuple[str, ...]:
    path = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    if path is None:
        return ()
    try:
        lines = read_regular(path, CLASSES_LIMIT_BYTES).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as UTF-8 text ({error}); it should name a class a line."
        ) from error
    return tuple(line.strip() for line in lines if line.strip())


def _split_of(where: str) -> str | None:
    """The split that a shard's path names, as in `train/000.tar` or `imagenet-val-0003.tar`."""
    words = re.split(r"[^a-z]+", where.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
