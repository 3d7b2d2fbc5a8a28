"""`bundle.json`, read without trust and without PyTorch: what a bundle says of itself."""

import errno
import math
import zipfile
from pathlib import Path
from typing import Any

from inception.errors import BundleError, UsageError, first_line
from inception.files import parse_json

SCHEMA = 1
LABELS_SCHEMA = 2
"""Of bundles with several labels an image: versions that would answer with one refuse them."""
MANIFEST_FILE = "bundle.json"
MANIFEST_LIMIT_BYTES, MANIFEST_LIMIT_VALUES = 4 << 20, 200_000
"""A manifest larger than this is refused before it is parsed."""


def member_bytes(path: Path, name: str, limit: int | None = None) -> bytes:
    """The bytes of one file of the bundle at `path` (folder or `.zip`), at most `limit` of them.

    Raises FileNotFoundError when it is not there, BundleError when it is larger or compressed, and what
    reading a damaged file raises (OSError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError).
    """
    if path.is_dir():
        file = path / name
        _require_size(file.stat().st_size, path, name, limit)
        return file.read_bytes()
    with zipfile.ZipFile(path) as archive:
        try:
            member = archive.getinfo(name)
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file in the archive", name) from None
        # Stored members cannot expand beyond the file they lie in.
        if member.compress_type != zipfile.ZIP_STORED:
            raise BundleError(f"{path}: {name} is compressed; bundles are stored uncompressed (zip -0)")
        _require_size(member.file_size, path, name, limit)
        return archive.read(name)


def _require_size(size: int, path: Path, name: str, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise BundleError(f"{path}: {name} has {size} bytes, more than {limit}")


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
    try:
        return parse_manifest(data, path)
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        reason = f"{MANIFEST_FILE}: {type(error).__name__}: {first_line(error)}"
        raise BundleError(f"{path} is not a usable bundle: {reason}") from error


def parse_manifest(data: bytes, path: Path) -> dict[str, Any]:
    """The manifest in `data`, of the bundle at `path`.

    Raises BundleError for a schema that this version does not read, and for everything else that is wrong
    what parsing and comparing raise (ValueError, LookupError, TypeError, ArithmeticError, RecursionError).
    """
    manifest: dict[str, Any] = parse_json(data, MANIFEST_LIMIT_VALUES)
    schema = manifest["schema"]
    if schema not in (SCHEMA, LABELS_SCHEMA):
        raise BundleError(
            f"{path} has schema {schema!r:.60}; this version reads schema {SCHEMA} and {LABELS_SCHEMA}: "
            "update inception"
        )
    _check_kinds(manifest)
    return manifest


def thresholds_of(manifest: dict[str, Any]) -> tuple[float, ...] | None:
    """One number in 0..1 for each label where an image may have several, else None. Raises ValueError."""
    if manifest["schema"] == SCHEMA:
        return None
    values = tuple(map(float, manifest["thresholds"]))
    if len(values) != len(manifest["labels"]) or not all(0.0 <= value <= 1.0 for value in values):
        raise ValueError("thresholds must be one number in 0..1 for each label")
    return values


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


def _check_kinds(manifest: dict[str, Any]) -> None:
    """Raise ValueError for a value of the wrong kind."""
    labels, threshold = manifest["labels"], manifest["unknown_threshold"]
    objects = {key: manifest[key] for key in ("network", "preprocess", "provenance", "metrics")}
    for outer, inner in (("network", "arguments"), ("provenance", "recipe"), ("provenance", "versions")):
        if isinstance(objects[outer], dict):
            objects[f"{outer}.{inner}"] = objects[outer].get(inner, {})
    problems = {f"{key} must be an object": not isinstance(value, dict) for key, value in objects.items()}
    problems |= {
        "labels must be a list of texts": not isinstance(labels, list)
        or not labels
        or not all(isinstance(label, str) for label in labels),
        "temperature must be a positive number": not 0.0 < float(manifest["temperature"]) < math.inf,
        "unknown_threshold must be null or in 0..1": threshold is not None
        and not 0.0 <= float(threshold) <= 1.0,
    }
    for message, wrong in problems.items():
        if wrong:
            raise ValueError(message)
    if not isinstance(manifest["network"]["name"], str):
        raise TypeError("network.name must be text")
