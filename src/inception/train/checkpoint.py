"""Checkpoints on disk: a safetensors file and the JSON file that vouches for it, the newest few kept.

checkpoints/00002-0000150.safetensors   tensors, nothing executable
checkpoints/00002-0000150.json          options, progress, fingerprint, SHA-256 of the tensors and of itself

A checkpoint exists once its JSON does: that is written last, and removed first.
"""

import errno
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError, safe_open

from inception.errors import InceptionError, TrainingError, first_line
from inception.files import (
    atomic_path,
    atomic_write_text,
    parse_json,
    read_regular,
    remove_leftovers,
    sha256_file,
)
from inception.train.state import Progress, TrainingState, from_tensors, to_tensors

Value = TypeVar("Value")
CHECKPOINT_FOLDER = "checkpoints"
SCHEMA = 1
JSON_LIMIT_BYTES, JSON_LIMIT_VALUES = 1 << 20, 20_000
"""A description larger than this is refused before it is parsed."""
_NAME = re.compile(r"\d{5,}-\d{7,}\.json")
_KEYS = {"schema", "config", "data_fingerprint", "progress", "tensors_sha256", "tensors_bytes", "sha256"}
_Damage = (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError, RecursionError)


def save_checkpoint(
    folder: Path, state: TrainingState, config: dict[str, Any], fingerprint: str, keep: int
) -> None:
    """Write everything a bit-identical continuation needs, atomically and durably, and remove old ones.

    The newest `keep` stay, and the one at the end of the best epoch. Every process must call it; the first
    writes. Raises WriteError, with all older checkpoints intact.
    """
    tensors = to_tensors(state)
    if not state.ranks.first:
        return
    progress = state.progress
    path = folder / f"{progress.epoch:05}-{progress.batch:07}.json"
    weights = path.with_suffix(".safetensors")
    with atomic_path(weights) as temporary:
        try:
            safetensors.torch.save_file(tensors, temporary)
        except SafetensorError as error:
            # The system's error number is only in the text.
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, first_line(error)) from error
        checksum, size = sha256_file(temporary), temporary.stat().st_size
    content = {
        "schema": SCHEMA,
        "config": config,
        "data_fingerprint": fingerprint,
        "progress": progress.to_dict(),
        "tensors_sha256": checksum,
        "tensors_bytes": size,
    }
    atomic_write_text(path, json.dumps({**content, "sha256": _checksum(content)}, indent=1) + "\n")
    _remove_old(folder, keep, progress.best_epoch)


def list_checkpoints(folder: Path) -> list[Path]:
    """The JSON files of a run's checkpoints, newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=_position, reverse=True)


def clean_checkpoints(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    described = {path.stem for path in list_checkpoints(folder)}
    for path in folder.iterdir() if folder.is_dir() else ():
        temporary = path.name.startswith(".") and path.name.endswith(".tmp")
        if temporary or (path.suffix == ".safetensors" and path.stem not in described):
            path.unlink(missing_ok=True)
    remove_leftovers(folder)


def read_config_of(folder: Path) -> dict[str, Any]:
    """The configuration of the run whose checkpoints these are. Raises TrainingError when none is usable."""
    return dict(_newest(folder, lambda path: _read_json(path)["config"])[1])


def load_checkpoint(
    folder: Path, state: TrainingState, fingerprint: str, tell: Callable[[str], None] = lambda text: None
) -> None:
    """Put the newest intact checkpoint back into the live objects; `tell` hears of damaged ones.

    Raises TrainingError when none fits the run, or when it was trained on other data than `fingerprint`'s.
    """

    def restore(path: Path) -> None:
        content = _read_json(path)
        weights = path.with_suffix(".safetensors")
        if weights.stat().st_size != content["tensors_bytes"]:
            raise ValueError(f"{weights.name} has another size than was written")
        if sha256_file(weights) != content["tensors_sha256"]:
            raise ValueError(f"{weights.name} does not match its checksum")
        if content["data_fingerprint"] != fingerprint:
            raise TrainingError(f"the data has changed since {path} was written: start a new run")
        progress = Progress.from_dict(content["progress"])
        with safe_open(weights, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        from_tensors(state, tensors, progress)

    damaged, _ = _newest(folder, restore)
    for reason in damaged:
        tell(f"{reason}; continuing from the checkpoint before it")


def _newest(folder: Path, read: Callable[[Path], Value]) -> tuple[list[str], Value]:
    """What `read` makes of the newest checkpoint that is intact, and what is wrong with those after it."""
    damaged: list[str] = []
    for path in list_checkpoints(folder):
        try:
            return damaged, read(path)
        except InceptionError:
            raise
        except _Damage as error:
            damaged.append(f"{path} is damaged ({first_line(error):.200})")
    reason = damaged[0] if damaged else f"{folder} holds no checkpoint"
    raise TrainingError(f"{reason}: no usable checkpoint is left; remove {folder} to start anew")


def _read_json(path: Path) -> dict[str, Any]:
    """A checkpoint's description, its form and checksum verified. Raises ValueError and the like."""
    content = parse_json(read_regular(path, JSON_LIMIT_BYTES), JSON_LIMIT_VALUES)
    if not isinstance(content, dict) or content.keys() != _KEYS:
        raise ValueError(f"{path.name} does not describe a checkpoint")
    if content["schema"] != SCHEMA:
        raise ValueError(f"{path.name} has schema {content['schema']!r:.20}, not {SCHEMA}")
    if content.pop("sha256") != _checksum(content):
        raise ValueError(f"{path.name} does not match its checksum")
    if not isinstance(content["config"], dict):
        raise TypeError("its options are no object")
    return content


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _position(path: Path) -> tuple[int, int]:
    epoch, batch = path.stem.split("-")
    return int(epoch), int(batch)


def _remove_old(folder: Path, keep: int, best_epoch: int) -> None:
    for path in list_checkpoints(folder)[keep:]:
        if _position(path) != (best_epoch, 0):
            path.unlink(missing_ok=True)
            path.with_suffix(".safetensors").unlink(missing_ok=True)
