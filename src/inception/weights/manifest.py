"""`bundle.json`, read without trust and without PyTorch: what a bundle says of itself."""

import errno
import io
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from inception.errors import BundleError, UsageError, first_line
from inception.files import open_regular, parse_json, read_regular

SCHEMA = 1
LABELS_SCHEMA = 2
"""Of bundles with several labels an image: versions that would answer with one refuse them."""
MANIFEST_FILE, WEIGHTS_FILE = "bundle.json", "model.safetensors"
MANIFEST_LIMIT_BYTES, MANIFEST_LIMIT_VALUES = 4 << 20, 200_000
"""A manifest larger than this is refused before it is parsed."""
ZIP_LIST_LIMIT_BYTES = 1 << 20
TEMPERATURES = (0.001, 1000.0)
"""Calibrating gives 0.01 to 100. Beyond, probabilities say nothing: all equal, or not even numbers."""


def member_bytes(path: Path, name: str, limit: int) -> bytes:
    """The bytes of one file of the bundle at `path` (folder or `.zip`), at most `limit` of them.

    Raises FileNotFoundError when it is not there, BundleError when it is compressed, and what reading a
    damaged or hostile file raises (OSError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError).
    """
    if path.is_dir():
        return read_regular(path / name, limit)
    with open_regular(path) as stream, _opened_zip(stream) as archive:
        member = _zip_member(archive, path, name)
        if member.file_size > limit:
            raise ValueError(f"{name} has {member.file_size:,} bytes, more than {limit:,}")
        return archive.read(name)


def member_size(path: Path, name: str) -> int:
    """How many bytes a file of the bundle has, by the folder or the archive. Raises as `member_bytes`."""
    if path.is_dir():
        return (path / name).stat().st_size
    with open_regular(path) as stream, _opened_zip(stream) as archive:
        return _zip_member(archive, path, name).file_size


def _zip_member(archive: zipfile.ZipFile, path: Path, name: str) -> zipfile.ZipInfo:
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise FileNotFoundError(errno.ENOENT, "no such file in the archive", name) from None
    # Stored members cannot expand beyond the file they lie in.
    if member.compress_type != zipfile.ZIP_STORED:
        raise BundleError(f"{path}: {name} is compressed; bundles are stored uncompressed (zip -0)")
    return member


class _Listed(io.RawIOBase):
    """A file whose list of members, which zipfile reads at once, may not be longer than a bundle needs."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream, self.limit = stream, ZIP_LIST_LIMIT_BYTES

    def read(self, size: int = -1) -> bytes:
        """As of any file. Raises ValueError beyond `limit`."""
        data = self._stream.read(self.limit + 1 if size < 0 else min(size, self.limit + 1))
        if len(data) > self.limit:
            raise ValueError(f"its list of files has more than {self.limit:,} bytes")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self._stream.tell()

    def seekable(self) -> bool:
        """As of any file."""
        return True


@contextmanager
def _opened_zip(stream: BinaryIO) -> Iterator[zipfile.ZipFile]:
    listed = _Listed(stream)
    with zipfile.ZipFile(cast(BinaryIO, listed)) as archive:
        listed.limit = sys.maxsize - 1  # the sizes of members are looked at before they are read
        yield archive


def manifest_bytes(path: Path) -> bytes:
    """`bundle.json` of the bundle at `path` as it is. Raises as `member_bytes` does."""
    return member_bytes(path, MANIFEST_FILE, MANIFEST_LIMIT_BYTES)


def read_manifest(path: Path) -> dict[str, Any]:
    """What the bundle at `path` (folder or `.zip`) says of itself, its values of the right kinds.

    Raises BundleError.
    """
    try:
        data = manifest_bytes(path)
    except FileNotFoundError as error:
        raise BundleError(f"{path} is not a bundle: {MANIFEST_FILE} is missing") from error
    except (OSError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError) as error:
        raise BundleError(f"{path} cannot be read as a bundle: {error}") from error
    return parse_manifest(data, path)


def parse_manifest(data: bytes, path: Path) -> dict[str, Any]:
    """The manifest in `data`, of the bundle at `path`.

    Raises BundleError for what is no manifest, has a schema that this version does not read, or a value of
    the wrong kind or beyond its range.
    """
    try:
        manifest = parse_json(data, MANIFEST_LIMIT_VALUES, finite=True)
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"is not JSON of finite numbers ({first_line(error)})") from error
    if not isinstance(manifest, dict):
        raise _unusable(path, f"must be an object, not {type(manifest).__name__}")
    if "schema" not in manifest:
        raise _unusable(path, "says no schema: it is of another tool, or was changed")
    schema = manifest["schema"]
    if type(schema) is not int or schema not in (SCHEMA, LABELS_SCHEMA):
        raise BundleError(
            f"{path} has schema {schema!r:.60}; this version reads schema {SCHEMA} and {LABELS_SCHEMA}: "
            "update inception"
        )
    for problem, wrong in _problems(manifest):
        if wrong:
            raise _unusable(path, problem)
    return manifest


def _unusable(path: Path, problem: str) -> BundleError:
    return BundleError(f"{path} is not a usable bundle: {MANIFEST_FILE} {problem}; restore it")


def thresholds_of(manifest: dict[str, Any]) -> tuple[float, ...] | None:
    """One number in 0..1 for each label where an image may have several, else None."""
    return None if manifest["schema"] == SCHEMA else tuple(map(float, manifest["thresholds"]))


def require_one_label(thresholds: tuple[float, ...] | None, purpose: str) -> None:
    """Raise UsageError for a bundle with `thresholds`: several labels an image, no matter for `purpose`."""
    if thresholds is not None:
        raise UsageError(
            f"{purpose} is for bundles with one label an image, and this one answers several: "
            "use inception predict or inception evaluate"
        )


def answers_several(path: Path) -> bool:
    """Whether the bundle at `path` says that an image may have several labels; damage is not its matter."""
    try:
        return bool(read_manifest(path)["schema"] == LABELS_SCHEMA)
    except BundleError:
        return False


def _problems(manifest: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """What may be wrong with the values, in words, and whether it is; each relies on those before it."""
    for key in ("network", "preprocess", "provenance", "metrics"):
        yield f"must have an object {key!r}", not isinstance(manifest.get(key), dict)
    network, provenance = manifest["network"], manifest["provenance"]
    yield "must name its network", not isinstance(network.get("name"), str)
    yield "must have the network's arguments, an object", not isinstance(network.get("arguments"), dict)
    for key in ("recipe", "versions"):
        yield f"must have an object as provenance.{key}", not isinstance(provenance.get(key, {}), dict)
    labels = manifest.get("labels")
    yield "must have labels, a list of texts", not (isinstance(labels, list) and labels)
    yield "must have labels that are texts", not all(isinstance(label, str) for label in manifest["labels"])
    yield "must have the weights' checksum, a text", not isinstance(manifest.get("weights_sha256"), str)
    low, high = TEMPERATURES
    yield f"must have a temperature in {low}..{high}", not _within(manifest.get("temperature"), low, high)
    yield "must say whether it has an unknown_threshold", "unknown_threshold" not in manifest
    threshold = manifest["unknown_threshold"]
    yield (
        "must have null or a number in 0..1 as unknown_threshold",
        not (threshold is None or _within(threshold, 0.0, 1.0)),
    )
    if manifest["schema"] == LABELS_SCHEMA:
        thresholds = manifest.get("thresholds")
        numbers = thresholds if isinstance(thresholds, list) else []
        yield (
            "must have thresholds, one number in 0..1 for each label",
            len(numbers) != len(manifest["labels"]) or not all(_within(value, 0.0, 1.0) for value in numbers),
        )


def _within(value: Any, low: float, high: float) -> bool:
    """Whether it is a number of the range; a truth value is none."""
    return type(value) in (int, float) and low <= value <= high
