"""Tar shards in WebDataset's layout, read at known offsets in an order fixed by the seed.

A folder of shards that `inception shard` wrote holds

- `train-000000.tar`, … : for each image its file, `.cls` (number of its class) and `.json` (names);
- `train-000000.index.json`, … : where each image lies in the shard, with its CRC-32;
- `index.json`: labels, splits, and size and SHA-256 of every shard. It is written last.
"""

import re
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from inception.data.archives import RandomAccessFile
from inception.data.dataset import SPLITS, Dataset, Record, Sample, build_dataset
from inception.data.stores import Store, check_size, missing_file
from inception.errors import DataError, ImageError
from inception.files import parse_json, read_regular, sha256_file

INDEX_FILE = "index.json"
INDEX_SUFFIX = ".index.json"
UNFINISHED = ".unfinished"
KIND, SCHEMA = "inception-shards", 1
WINDOW_SHARDS = 16
"""So many shards are shuffled together: what the order of an epoch keeps open and warm at a time."""

_OPEN_FILES = 64
_MAX_JSON_BYTES = 256 * 2**20
_MAX_JSON_VALUES = 20_000_000
_SHARD_NAME = re.compile(r"(?:train|val|test)-\d{6,}\.tar")
_COLUMNS = ("name", "key", "label", "offset", "size", "crc32")


@dataclass
class ShardColumns:
    """Where images lie, one entry an image in each column.

    Attributes:
        name: `shard.tar/member`.
        shard: position of the shard among the files.
        offset, size: bytes in the shard.
        crc: CRC-32 of the bytes, -1 where it is not known.
    """

    name: list[str] = field(default_factory=list)
    shard: "array[int]" = field(default_factory=lambda: array("l"))
    offset: "array[int]" = field(default_factory=lambda: array("q"))
    size: "array[int]" = field(default_factory=lambda: array("q"))
    crc: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, name: str, shard: int, offset: int, size: int, crc: int = -1) -> None:
        """One more image."""
        self.name.append(name)
        self.shard.append(shard)
        self.offset.append(offset)
        self.size.append(size)
        self.crc.append(crc)


class ShardStore:
    """The images of tar shards, each read at its offset.

    Args:
        root: the folder, for messages, or the single shard.
        files: the shards.
        columns: where the images are.
        checksums: SHA-256 of every shard, where an index recorded them.
    """

    def __init__(
        self, root: Path, files: Sequence[Path], columns: ShardColumns, checksums: Sequence[str] = ()
    ) -> None:
        self._root, self._files, self._columns = root, tuple(files), columns
        self.checksums = tuple(checksums)
        self._rows = {name: row for row, name in enumerate(columns.name)}
        self._forget_open_files()

    @property
    def location(self) -> str:
        """The folder's path."""
        return str(self._root)

    @property
    def files(self) -> tuple[Path, ...]:
        """The shards."""
        return self._files

    def names(self) -> list[str]:
        """Every image as `shard.tar/member`, sorted."""
        return sorted(self._rows)

    def empty_folders(self) -> list[str]:
        """Always empty: shards have no folders."""
        return []

    def shard_of(self, name: str) -> int:
        """Position of the image's shard in `files`."""
        return self._columns.shard[self._row(name)]

    def size(self, name: str) -> int:
        """Bytes of one image's file."""
        return self._columns.size[self._row(name)]

    def signature(self, name: str) -> str:
        """Size, and the CRC-32 where an index recorded it."""
        row = self._row(name)
        size, crc = self._columns.size[row], self._columns.crc[row]
        return str(size) if crc < 0 else f"{size}:{crc:08x}"

    def read(self, name: str) -> bytes:
        """One image's bytes, compared with the recorded CRC."""
        row = self._row(name)
        size, crc = self._columns.size[row], self._columns.crc[row]
        shard = self._columns.shard[row]
        check_size(name, self.location, size)
        try:
            data = self._opened(shard).read_at(self._columns.offset[row], size)
        except OSError as error:
            raise DataError(f"{self._files[shard]} cannot be read: {error.strerror}.") from error
        if len(data) < size:
            raise ImageError("truncated", f"{self._files[shard]} ends within {name}; copy the shard again.")
        if crc >= 0 and zlib.crc32(data) != crc:
            raise ImageError(
                "corrupt",
                f"{name} in {self.location} is not what its checksum says; copy the shard again.",
            )
        return data

    def head(self, name: str, count: int) -> bytes:
        """The first `count` bytes of one image, compared with nothing."""
        row = self._row(name)
        shard = self._columns.shard[row]
        try:
            return self._opened(shard).read_at(self._columns.offset[row], min(count, self._columns.size[row]))
        except OSError as error:
            raise DataError(f"{self._files[shard]} cannot be read: {error.strerror}.") from error

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_root", "_files", "_columns", "checksums")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._rows = {name: row for row, name in enumerate(self._columns.name)}
        self._forget_open_files()

    def _forget_open_files(self) -> None:
        self._open: dict[int, RandomAccessFile] = {}

    def _row(self, name: str) -> int:
        try:
            return self._rows[name]
        except KeyError:
            raise missing_file(name, self.location) from None

    def _opened(self, shard: int) -> RandomAccessFile:
        """The shard, opened at its first read. The one opened first is closed when its last reader ends.

        Single steps on a dict need no lock, which a fork could leave locked.
        """
        file = self._open.get(shard)
        if file is None:
            file = self._open.setdefault(shard, RandomAccessFile(self._files[shard]))
            if len(self._open) > _OPEN_FILES:
                oldest, *_ = list(self._open)
                self._open.pop(oldest, None)
        return file


def shard_order(
    store: ShardStore, samples: Sequence[Sample], seed: int, epoch: int
) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """The permutation of 0..n-1 in which `epoch` visits samples that lie in shards.

    The shards are shuffled, then every `WINDOW_SHARDS` of them together: only so many files are read at a
    time, and every sample comes once. It depends on nothing but the arguments.
    """
    rng = np.random.default_rng((seed, epoch, 0, 1))  # the stream of `training_order`
    shards = np.array([store.shard_of(sample.path) for sample in samples], dtype=np.int64)
    turn = np.empty(len(store.files), dtype=np.int64)
    present = rng.permutation(np.unique(shards))
    turn[present] = np.arange(len(present)) // WINDOW_SHARDS
    windows = turn[shards]
    shuffled = rng.permutation(len(samples))
    ordered: np.ndarray[tuple[int], np.dtype[np.int64]] = shuffled[
        np.argsort(windows[shuffled], kind="stable")
    ]
    return ordered


def damaged_shards(
    store: Store, progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[str, str]]:
    """(shard, what is wrong) for every shard whose SHA-256 is not the recorded one; every byte is read.

    Nothing for stores that are no shards, or have no index. `progress` gets the shards done and in all.
    """
    if not isinstance(store, ShardStore):
        return
    for done, (path, checksum) in enumerate(zip(store.files, store.checksums, strict=False), start=1):
        try:
            found = sha256_file(path)
        except OSError as error:
            yield path.name, f"{path} cannot be read: {error.strerror}."
            continue
        if found != checksum:
            yield path.name, f"{path} is not what its SHA-256 in {INDEX_FILE} says; copy it again."
        if progress is not None:
            progress(done, len(store.files))


def read_index(folder: Path) -> dict[str, Any] | None:
    """What the `index.json` of a folder of shards says, or None where there is none of ours.

    Raises DataError when it is damaged or of a newer version.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        return None
    try:
        content = _read_json(path)
    except DataError:
        # Somebody else's index.json is none of ours; half of ours still names its kind.
        if KIND.encode() in path.read_bytes()[:4096]:
            raise
        return None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        return None
    if content.get("schema") != SCHEMA:
        raise DataError(f"{path} has schema {content.get('schema')!r:.20}, not {SCHEMA}; update inception.")
    return content


def unfinished(folder: Path) -> bool:
    """Whether shards are being written to a folder, or the writer was stopped."""
    return (folder / UNFINISHED).is_file() and not (folder / INDEX_FILE).is_file()


def open_indexed(
    folder: Path, index: dict[str, Any], val_fraction: float, seed: int, measuring: bool = False
) -> Dataset:
    """The data set of a folder of shards whose `index.json` says `index`.

    Raises DataError when a shard is missing, cut short, or does not fit the index.
    """
    labels, records, store = read_shards(folder, index)
    return build_dataset(
        str(index.get("name")),
        records,
        store,
        labels=labels,
        val_fraction=val_fraction,
        seed=seed,
        flip_safe=bool(index.get("flip_safe", True)),
        measuring=measuring,
    )


def read_shards(folder: Path, index: dict[str, Any]) -> tuple[list[str], list[Record], ShardStore]:
    """Labels, images and their store, as `index.json` and the index of every shard say. Raises DataError."""
    try:
        labels = [str(label) for label in index["labels"]]
        records, store = _read_shards(folder, index["shards"], labels)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{folder / INDEX_FILE} does not describe its shards ({type(error).__name__}: {error}); "
            "copy it again, or write the shards again with `inception shard`."
        ) from error
    return labels, records, store


def _read_shards(
    folder: Path, shards: list[dict[str, Any]], labels: Sequence[str]
) -> tuple[list[Record], ShardStore]:
    records: list[Record] = []
    columns, files, checksums = ShardColumns(), [], []
    for number, shard in enumerate(shards):
        file, split = str(shard["file"]), str(shard["split"])
        if not _SHARD_NAME.fullmatch(file) or split not in SPLITS:
            raise ValueError(f"no shard is named {file!r:.80}")
        _require_size(folder / file, int(shard["bytes"]))
        entries = _read_entries(folder / file.replace(".tar", INDEX_SUFFIX), str(shard["index_sha256"]))
        for name, key, label, offset, size, crc in entries:
            if min(offset, size, label) < 0 or offset + size > shard["bytes"]:
                raise ValueError(f"{name!r:.80} lies outside {file}")
            path = f"{file}/{name}"
            columns.add(path, number, offset, size, crc)
            records.append(Record(path, labels[label], split, key))
        files.append(folder / file)
        checksums.append(str(shard["sha256"]))
    if len(set(columns.name)) < len(columns.name):
        raise ValueError("two images have the same name")
    return records, ShardStore(folder, files, columns, checksums)


def _require_size(path: Path, expected: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DataError(f"the shard {path} is missing ({error.strerror}); copy it again.") from error
    if found != expected:
        raise DataError(
            f"the shard {path} has {found:,} bytes instead of {expected:,}: "
            f"it was {'cut short' if found < expected else 'changed'}; copy it again."
        )


def _read_entries(path: Path, checksum: str) -> Iterator[tuple[str, str, int, int, int, int]]:
    try:
        found = sha256_file(path)
    except OSError as error:
        raise DataError(f"the shard's index {path} is missing ({error.strerror}); copy it again.") from error
    if found != checksum:
        raise DataError(f"{path} is not what its SHA-256 in {INDEX_FILE} says; copy it again.")
    content = _read_json(path)
    return zip(*(content[column] for column in _COLUMNS), strict=True)


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise DataError(f"{path} is over the limit of {_MAX_JSON_BYTES:,} bytes; do not trust it.")
        return parse_json(read_regular(path, _MAX_JSON_BYTES), _MAX_JSON_VALUES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); copy it again.") from error
