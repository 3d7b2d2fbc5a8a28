"""Writing a data set as tar shards in WebDataset's layout: the same bytes every time, never half a shard.

What is in the folder: `inception.data.shards`. The images are copied as they are, in an order that a hash of
their paths gives, so that a shard holds a mixture of all classes.
"""

import hashlib
import io
import json
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from inception.data.dataset import Dataset, Sample
from inception.data.shards import INDEX_FILE, INDEX_SUFFIX, KIND, SCHEMA, UNFINISHED
from inception.errors import DataError, UsageError
from inception.files import (
    atomic_path,
    atomic_write_text,
    held,
    lies_inside,
    make_folder,
    parse_json,
    read_regular,
)

DEFAULT_SHARD_BYTES = 256 * 2**20
"""Large enough for long reads, small enough to copy again and to divide among many."""

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_SIZE = re.compile(r"(\d+)\s*(|[KMG]I?)B?", re.IGNORECASE)
_BLOCK = tarfile.BLOCKSIZE
_MAX_INDEX_VALUES, _MAX_INDEX_BYTES = 20_000_000, 256 << 20
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sharded:
    """What `write_shards` left.

    Attributes:
        folder: where.
        images: for each split, how many.
        shards: for each split, how many.
        bytes: of all shards.
        kept: shards that an earlier, interrupted run had finished.
    """

    folder: Path
    images: dict[str, int]
    shards: dict[str, int]
    bytes: int
    kept: int


def parse_size(text: str) -> int:
    """Bytes that a text such as `256MB` (millions), `64MiB` or `1000000` means. Raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise UsageError(f"{text!r} is no size: write it as 256MB, 64MiB or 1GB")
    return int(match[1]) * _UNITS[match[2].upper()]


def write_shards(
    dataset: Dataset,
    folder: Path,
    *,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    shard_images: int | None = None,
    progress: Progress | None = None,
) -> Sharded:
    """Write `dataset` to `folder` as shards, each split apart.

    A shard is written beside its place, synced and renamed; one that a killed run left behind is kept when
    its index says the same data set and limits, and the rest is added. The bytes depend on the data set and
    the limits alone.

    Args:
        dataset: labelled images with their splits.
        folder: empty or new, or an unfinished one of the same call.
        shard_bytes: a shard is full before it would be larger than this (a single larger image fits alone).
        shard_images: or before it would hold more than so many.
        progress: called with the images done and in all.

    Raises:
        UsageError: if `folder` holds something else or lies inside the data, another process writes to it,
            or images have several labels.
        DataError: if an image cannot be read.
        WriteError: if the folder cannot be written.
    """
    if dataset.multilabel:
        raise UsageError(f"{dataset.name} has several labels an image: shards hold one")
    if lies_inside(folder, Path(dataset.store.location)):
        raise UsageError(f"the shards would lie inside the data {dataset.name}: choose an --output outside")
    plan = _plan_digest(dataset, shard_bytes, shard_images)
    _refuse_foreign(folder, plan)
    make_folder(folder)
    with held(folder, "another process is writing to"):
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        atomic_write_text(folder / UNFINISHED, json.dumps({"plan": plan}))
        writer = _Writer(dataset, folder, plan, shard_bytes, shard_images or 0, progress)
        shards = [shard for split in dataset.splits for shard in writer.write_split(split)]
        index = _index_of(dataset, plan, shards)
        atomic_write_text(folder / INDEX_FILE, json.dumps(index, indent=1) + "\n")
        (folder / UNFINISHED).unlink(missing_ok=True)
        (folder / ".lock").unlink(missing_ok=True)
    return Sharded(
        folder=folder,
        images={name: counts["images"] for name, counts in index["splits"].items()},
        shards={name: counts["shards"] for name, counts in index["splits"].items()},
        bytes=sum(shard["bytes"] for shard in shards),
        kept=writer.kept,
    )


def _index_of(dataset: Dataset, plan: str, shards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `index.json` holds."""
    counts = {name: {"images": 0, "shards": 0} for name in dataset.splits}
    for shard in shards:
        counts[shard["split"]]["images"] += shard["images"]
        counts[shard["split"]]["shards"] += 1
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "plan": plan,
        "name": dataset.name,
        "flip_safe": dataset.flip_safe,
        "source_fingerprint": dataset.fingerprint,
        "splits": counts,
        "labels": dataset.labels,
        "shards": shards,
    }


def _plan_digest(dataset: Dataset, shard_bytes: int, shard_images: int | None) -> str:
    words = (SCHEMA, dataset.fingerprint, dataset.labels, dataset.flip_safe, shard_bytes, shard_images)
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def _refuse_foreign(folder: Path, plan: str) -> None:
    """Only an empty folder, or shards of the same plan, may be written to."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name a folder for the shards")
    if not folder.is_dir():
        return
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    ours = [name for name in (*names, UNFINISHED) if name.endswith((INDEX_SUFFIX, INDEX_FILE, UNFINISHED))]
    plans = {_plan_of(folder / name) for name in ours if (folder / name).is_file()}
    if plans - {plan} or (names and not plans):
        raise UsageError(
            f"{folder} is not empty, and not what the same command left: name another folder for the shards"
        )


def _plan_of(path: Path) -> str:
    try:
        return str(parse_json(read_regular(path, _MAX_INDEX_BYTES), _MAX_INDEX_VALUES)["plan"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


class _Writer:
    """Writes the shards of one data set; `kept` counts those that were there already."""

    def __init__(
        self,
        dataset: Dataset,
        folder: Path,
        plan: str,
        shard_bytes: int,
        shard_images: int,
        progress: Progress | None,
    ) -> None:
        self.dataset, self.folder, self.plan = dataset, folder, plan
        self.shard_bytes, self.shard_images, self.progress = shard_bytes, shard_images, progress
        self.kept = self._done = 0

    def write_split(self, split: str) -> Iterator[dict[str, Any]]:
        """What `index.json` says of each shard of a split, once it is on disk."""
        samples = sorted(self.dataset.split(split), key=lambda sample: _hashed(sample.path))
        first = number = 0
        while first < len(samples):
            path = self.folder / f"{split}-{number:06d}.tar"
            shard = self._finished(path, samples, first) or self._write(path, samples, first)
            shard["split"] = split
            first += shard["images"]
            number += 1
            yield shard

    def _finished(self, path: Path, samples: Sequence[Sample], first: int) -> dict[str, Any] | None:
        """The shard that an earlier run finished, or None."""
        index = path.with_name(path.name.replace(".tar", INDEX_SUFFIX))
        try:
            data = read_regular(index, _MAX_INDEX_BYTES)
            content = parse_json(data, _MAX_INDEX_VALUES)
            keys = content["key"]
            wanted = [sample.path for sample in samples[first : first + len(keys)]]
            whole = content["plan"] == self.plan and path.stat().st_size == content["bytes"]
            if not (keys and whole and keys == wanted):
                return None
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        self.kept += 1
        self._report(len(keys))
        return _summary(content, data)

    def _write(self, path: Path, samples: Sequence[Sample], first: int) -> dict[str, Any]:
        columns: dict[str, list[Any]] = {
            name: [] for name in ("name", "key", "label", "offset", "size", "crc32")
        }
        with atomic_path(path) as temporary, temporary.open("wb") as raw:
            stream = _Hashing(raw)
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
                for number, sample in enumerate(samples[first:], start=first):
                    members = self._members(sample, number)
                    if columns["name"] and self._is_full(len(columns["name"]), tar.offset, members):
                        break
                    (name, data), *_ = members
                    for value, column in zip(
                        (name, sample.path, sample.label, tar.offset + _BLOCK, len(data), zlib.crc32(data)),
                        columns.values(),
                        strict=True,
                    ):
                        column.append(value)
                    for member, content in members:
                        _add(tar, member, content)
                    self._report(1)
        described = {
            "schema": SCHEMA,
            "plan": self.plan,
            "file": path.name,
            "bytes": stream.count,
            "sha256": stream.digest.hexdigest(),
            **columns,
        }
        text = json.dumps(described, separators=(",", ":")) + "\n"
        atomic_write_text(path.with_name(path.name.replace(".tar", INDEX_SUFFIX)), text)
        return _summary(described, text.encode())

    def _members(self, sample: Sample, number: int) -> list[tuple[str, bytes]]:
        """The image as it is, and what WebDataset's readers take its class from."""
        try:
            data = self.dataset.read(sample)
        except DataError as error:
            raise DataError(f"{error} No shard can be made of it: see `inception check`.") from error
        key, label = f"{number:08d}", self.dataset.labels[sample.label]
        extension = posixpath.splitext(sample.path)[1].lower()
        described = {"label": label, "path": sample.path}
        return [
            (f"{key}{extension}", data),
            (f"{key}.cls", str(sample.label).encode()),
            (f"{key}.json", json.dumps(described).encode()),
        ]

    def _is_full(self, images: int, offset: int, members: Sequence[tuple[str, bytes]]) -> bool:
        grown = offset + sum(_BLOCK + _padded(len(data)) for _, data in members)
        # Two empty blocks end a tar, which is then filled up to a whole record.
        total = -(-(grown + 2 * _BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
        return total > self.shard_bytes or 0 < self.shard_images <= images

    def _report(self, images: int) -> None:
        self._done += images
        if self.progress is not None:
            self.progress(self._done, len(self.dataset.samples))


class _Hashing:
    """A file that is written from start to end, with its length and SHA-256."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.count, self.digest = stream, 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Append `data`."""
        self.count += len(data)
        self.digest.update(data)
        return self._stream.write(data)

    def tell(self) -> int:
        """Bytes so far."""
        return self.count


def _hashed(path: str) -> bytes:
    return hashlib.sha256(path.encode(errors="surrogateescape")).digest()


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # A TarInfo without times, owners or rights of its own: the same bytes on every machine.
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _summary(content: dict[str, Any], index: bytes) -> dict[str, Any]:
    """What `index.json` says of a shard, given its own index and that one's bytes."""
    return {
        "file": content["file"],
        "images": len(content["name"]),
        "bytes": content["bytes"],
        "sha256": content["sha256"],
        "index_sha256": hashlib.sha256(index).hexdigest(),
    }
