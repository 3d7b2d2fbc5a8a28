"""The bundle: a folder, or one `.zip` of it, that holds all that a classifier is.

model.safetensors    weights, nothing executable
bundle.json          schema, architecture, labels, preprocessing, provenance, measurements, checksum
card.md              the model card, generated
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from inception.data.preprocess import Preprocess
from inception.errors import BundleError, InceptionError, UsageError
from inception.files import atomic_directory, atomic_path
from inception.nets.network import Network
from inception.nets.registry import build_network
from inception.weights.card import write_card

SCHEMA = 1
WEIGHTS_FILE, MANIFEST_FILE, CARD_FILE = "model.safetensors", "bundle.json", "card.md"
MANIFEST_LIMIT_BYTES = 16 << 20
"""A manifest larger than this is refused before it is parsed."""


@dataclass(frozen=True)
class Bundle:
    """A classifier at rest.

    Attributes:
        network: name under which the network is built, e.g. `googlenet_bn`.
        arguments: keyword arguments it is built with (without `num_classes`).
        labels: class names; position i belongs to output i.
        preprocess: how an image becomes the network's input.
        state_dict: weights and buffers by name.
        provenance: how it was made (data fingerprint, recipe, seed, versions, source).
        metrics: what it measured, by split.
        unknown_threshold: probability below which the answer is `unknown`; None when not calibrated.
        temperature: divisor of the logits before the softmax, calibrated on validation images.
    """

    network: str
    arguments: dict[str, Any]
    labels: tuple[str, ...]
    preprocess: Preprocess
    state_dict: Mapping[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    unknown_threshold: float | None = None
    temperature: float = 1.0

    def build(self) -> Network:
        """The network with its weights, in evaluation mode. Raises BundleError when they do not fit."""
        network = build_network(self.network, num_classes=len(self.labels), **self.arguments)
        try:
            network.load_state_dict(dict(self.state_dict))
        except RuntimeError as error:
            raise BundleError(f"the bundle's weights do not fit its network: {error}") from error
        return network.eval()

    def with_metrics(self, **metrics: Any) -> "Bundle":
        """A copy with further measurements."""
        return replace(self, metrics={**self.metrics, **metrics})

    def manifest(self) -> dict[str, Any]:
        """What `bundle.json` holds, without the weights' checksum."""
        return {
            "schema": SCHEMA,
            "network": {"name": self.network, "arguments": self.arguments},
            "labels": list(self.labels),
            "preprocess": self.preprocess.to_dict(),
            "temperature": self.temperature,
            "unknown_threshold": self.unknown_threshold,
            "provenance": self.provenance,
            "metrics": self.metrics,
        }


def save_bundle(bundle: Bundle, path: Path) -> None:
    """Write `bundle` to the folder `path` (or one file, when it ends in `.zip`), atomically.

    Raises BundleError when the place cannot be written, or holds something that is not a bundle.
    """
    weights = safetensors.torch.save({name: value.contiguous() for name, value in bundle.state_dict.items()})
    checksum = hashlib.sha256(weights).hexdigest()
    manifest = {**bundle.manifest(), "weights_sha256": checksum}
    files = {
        WEIGHTS_FILE: weights,
        MANIFEST_FILE: json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False).encode(),
        CARD_FILE: write_card(manifest).encode(),
    }
    try:
        if path.suffix == ".zip":
            _write_zip(files, path)
        else:
            _refuse_foreign_folder(path)
            with atomic_directory(path) as folder:
                for name, content in files.items():
                    (folder / name).write_bytes(content)
    except OSError as error:
        raise BundleError(f"cannot write the bundle to {path}: {error.strerror or error}") from error


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle from a folder or a `.zip`.

    Raises BundleError when it is missing, damaged (checksum), or of a newer schema.
    """
    path = Path(path)
    manifest_bytes, weights = _read_files(path)
    try:
        manifest = json.loads(manifest_bytes)
        schema = manifest["schema"]
        if schema != SCHEMA:
            raise BundleError(
                f"{path} has schema {schema}; this version reads schema {SCHEMA}: update inception"
            )
        if hashlib.sha256(weights).hexdigest() != manifest["weights_sha256"]:
            raise BundleError(
                f"{path}: {WEIGHTS_FILE} does not match its checksum: the file is damaged, restore it"
            )
        return Bundle(
            network=manifest["network"]["name"],
            arguments=dict(manifest["network"]["arguments"]),
            labels=tuple(map(str, manifest["labels"])),
            preprocess=Preprocess.from_dict(manifest["preprocess"]),
            state_dict=safetensors.torch.load(weights),
            provenance=dict(manifest["provenance"]),
            metrics=dict(manifest["metrics"]),
            unknown_threshold=manifest["unknown_threshold"],
            temperature=float(manifest["temperature"]),
        )
    except InceptionError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise BundleError(f"{path} is not a usable bundle: {MANIFEST_FILE} or weights: {error!r}") from error


def _refuse_foreign_folder(path: Path) -> None:
    occupied = path.is_file() or (
        path.is_dir() and any(path.iterdir()) and not (path / MANIFEST_FILE).exists()
    )
    if occupied:
        raise BundleError(f"{path} exists and is not a bundle: choose another place or remove it")


def _write_zip(files: Mapping[str, bytes], path: Path) -> None:
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _read_files(path: Path) -> tuple[bytes, bytes]:
    if not path.exists():
        raise UsageError(f"there is no bundle at {path}")
    try:
        if path.is_dir():
            _check_manifest_size((path / MANIFEST_FILE).stat().st_size, path)
            return (path / MANIFEST_FILE).read_bytes(), (path / WEIGHTS_FILE).read_bytes()
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path)
    except FileNotFoundError as error:
        raise BundleError(f"{path} is not a bundle: {Path(error.filename).name} is missing") from error
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise BundleError(f"{path} cannot be read as a bundle: {error}") from error


def _read_archive(archive: zipfile.ZipFile, path: Path) -> tuple[bytes, bytes]:
    members = {info.filename: info for info in archive.infolist()}
    for name in (MANIFEST_FILE, WEIGHTS_FILE):
        if name not in members:
            raise BundleError(f"{path} is not a bundle: {name} is missing")
        # Stored members cannot expand beyond the file they lie in.
        if members[name].compress_type != zipfile.ZIP_STORED:
            raise BundleError(f"{path}: {name} is compressed; bundles are stored uncompressed (zip -0)")
    _check_manifest_size(members[MANIFEST_FILE].file_size, path)
    return archive.read(MANIFEST_FILE), archive.read(WEIGHTS_FILE)


def _check_manifest_size(size: int, path: Path) -> None:
    if size > MANIFEST_LIMIT_BYTES:
        raise BundleError(f"{path}: {MANIFEST_FILE} has {size} bytes, more than {MANIFEST_LIMIT_BYTES}")
