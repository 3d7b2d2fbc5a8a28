"""The bundle: a folder, or one `.zip` of it, that holds all that a classifier is.

model.safetensors    weights, nothing executable
bundle.json          schema, architecture, labels, preprocessing, provenance, measurements, checksum
card.md              the model card, generated
"""

import hashlib
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from inception.data.preprocess import Preprocess
from inception.errors import BundleError, InceptionError, UsageError, first_line
from inception.files import atomic_directory, atomic_path, previous_directory
from inception.nets.heads import FullyConnectedHead
from inception.nets.network import Network
from inception.nets.registry import build_network
from inception.weights.card import write_card
from inception.weights.manifest import (
    LABELS_SCHEMA,
    MANIFEST_FILE,
    SCHEMA,
    WEIGHTS_FILE,
    manifest_bytes,
    member_bytes,
    member_size,
    parse_manifest,
    thresholds_of,
)

CARD_FILE = "card.md"
FREE_WEIGHTS_BYTES, MOST_WEIGHTS_BYTES = 64 << 20, 4 << 30
"""Weights of the first size are read as they are; larger ones only as far as the network can need."""


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
        thresholds: where an image may have several labels, the probability from which it has each; None in
            a bundle with one label an image.
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
    thresholds: tuple[float, ...] | None = None

    def build(self) -> Network:
        """The network with its weights, in evaluation mode.

        Raises BundleError when the weights, the labels or the preprocessing do not fit it.
        """
        # First without memory: what a damaged description asks for may be far larger than the weights.
        with torch.device("meta"):
            self.check_fit(self._fresh_network())
        network = self._fresh_network()
        network.load_state_dict(dict(self.state_dict))
        return network.eval()

    def _fresh_network(self) -> Network:
        return _built(self.network, self.arguments, self.labels)

    def check_fit(self, network: Network) -> None:
        """Raise BundleError unless weights and preprocessing fit `network`, which may have no memory."""
        wanted = {name: value.shape for name, value in network.state_dict().items()}
        found = {name: value.shape for name, value in self.state_dict.items()}
        wrong = [
            name for name in {**wanted, **found} if wanted.get(name) != found.get(name) or 0 in wanted[name]
        ]
        if wrong:
            raise BundleError(
                f"the bundle's weights do not fit its network: {len(wrong)} tensors are missing, unexpected "
                f"or of another shape ({', '.join(wrong[:3])}{', …' if len(wrong) > 3 else ''})"
            )
        preprocess, sides = self.preprocess, (self.preprocess.height, self.preprocess.width)
        fixed = isinstance(network.head, FullyConnectedHead)
        problems = {
            f"makes {preprocess.in_chans} channels, not {network.in_chans}": preprocess.in_chans
            != network.in_chans,
            f"makes images of less than {network.min_size} pixels": min(sides) < network.min_size,
            f"makes images of another size than {network.image_size}": fixed
            and sides != (network.image_size,) * 2,
        }
        for problem, wrong_here in problems.items():
            if wrong_here:
                raise BundleError(f"the bundle's preprocessing does not fit its network: it {problem}")
        if not network.head.pooled:
            raise BundleError("the bundle's network ends in a map, not in one number for each label")

    def with_metrics(self, **metrics: Any) -> "Bundle":
        """A copy with further measurements."""
        return replace(self, metrics={**self.metrics, **metrics})

    def manifest(self) -> dict[str, Any]:
        """What `bundle.json` holds, without the weights' checksum."""
        several = {} if self.thresholds is None else {"thresholds": list(self.thresholds)}
        return {
            "schema": LABELS_SCHEMA if several else SCHEMA,
            "network": {"name": self.network, "arguments": self.arguments},
            "labels": list(self.labels),
            "preprocess": self.preprocess.to_dict(),
            "temperature": self.temperature,
            "unknown_threshold": self.unknown_threshold,
            **several,
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
        MANIFEST_FILE: _to_json(manifest),
        CARD_FILE: write_card(manifest).encode(errors="replace"),
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


def _to_json(manifest: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
        return text.encode(errors="surrogatepass")  # names of folders need not be text
    except (TypeError, ValueError) as error:
        raise BundleError(f"the bundle's description must be JSON with finite numbers: {error}") from error


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle from a folder or a `.zip`.

    Raises BundleError when it is missing, damaged (checksum), or of a newer schema.
    """
    path = Path(path)
    manifest, weights = _read_files(path)
    _check_weights(weights, manifest["weights_sha256"], path)
    try:
        return Bundle(
            network=manifest["network"]["name"],
            arguments=manifest["network"]["arguments"],
            labels=tuple(manifest["labels"]),
            preprocess=Preprocess.from_dict(manifest["preprocess"]),
            state_dict=safetensors.torch.load(weights),
            provenance=manifest["provenance"],
            metrics=manifest["metrics"],
            unknown_threshold=manifest["unknown_threshold"],
            temperature=float(manifest["temperature"]),
            thresholds=thresholds_of(manifest),
        )
    except InceptionError as error:
        raise BundleError(f"{path} is not a usable bundle: {MANIFEST_FILE}: {error}") from error
    except (ValueError, LookupError, TypeError, ArithmeticError, SafetensorError) as error:
        reason = f"{WEIGHTS_FILE} is damaged ({first_line(error)}); restore it"
        raise BundleError(f"{path} is not a usable bundle: {reason}") from error


def _check_weights(weights: bytes, checksum: str, path: Path) -> None:
    if hashlib.sha256(weights).hexdigest() != checksum:
        raise BundleError(
            f"{path}: {WEIGHTS_FILE} does not match its checksum: the file is damaged, restore it"
        )


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


def _read_files(path: Path) -> tuple[dict[str, Any], bytes]:
    # A writer may have died between putting the old folder aside and the new one in its place.
    asked, path = path, path if path.exists() else previous_directory(path)
    if not path.exists():
        raise UsageError(f"there is no bundle at {asked}")
    try:
        manifest = parse_manifest(manifest_bytes(path), path)
        limit = MOST_WEIGHTS_BYTES
        if member_size(path, WEIGHTS_FILE) > FREE_WEIGHTS_BYTES:
            limit = _most_bytes(manifest)
        return manifest, member_bytes(path, WEIGHTS_FILE, limit)
    except FileNotFoundError as error:
        inner = path / "bundle"
        hint = f" (it is a run folder: its bundle is {inner})" if (inner / MANIFEST_FILE).exists() else ""
        raise BundleError(f"{path} is not a bundle: {Path(error.filename).name} is missing{hint}") from error
    except (OSError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, struct.error) as error:
        raise BundleError(f"{path} cannot be read as a bundle: {error}") from error


def _most_bytes(manifest: Mapping[str, Any]) -> int:
    """What the weights of the described network can take in double precision, and what names them."""
    with torch.device("meta"):
        network = _built(manifest["network"]["name"], manifest["network"]["arguments"], manifest["labels"])
    numbers: int = sum(value.numel() for value in network.state_dict().values())
    return min(8 * numbers + FREE_WEIGHTS_BYTES, MOST_WEIGHTS_BYTES)


def _built(name: str, arguments: Mapping[str, Any], labels: Sequence[str]) -> Network:
    """A fresh network for these labels. Raises BundleError where the description is of none."""
    try:
        return build_network(name, num_classes=len(labels), **arguments)
    except (InceptionError, RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        raise BundleError(f"the bundle's network cannot be built: {first_line(error)}") from error
