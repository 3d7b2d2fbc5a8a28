"""Foreign weights in: from a file somebody else wrote to a bundle."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from inception.errors import UsageError, WeightsError, first_line
from inception.files import sha256_file
from inception.nets.network import Network
from inception.nets.registry import ARCHITECTURES, build_network, canonical_name
from inception.weights.bundle import Bundle
from inception.weights.keymaps import choose_key_map
from inception.weights.preprocessing import PREPROCESSING

LABEL_SUFFIXES = (".synsets.txt", ".labels.txt")


@dataclass(frozen=True)
class ImportReport:
    """What did not fit.

    Attributes:
        missing: our tensors that the file does not have.
        unexpected: the file's tensors that the network has no place for.
        mis_shaped: (our name, shape in the file, shape wanted).
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mis_shaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    @property
    def complete(self) -> bool:
        """Every tensor of the network was found in its right shape."""
        return not self.missing and not self.mis_shaped


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a `.safetensors`, `.pth` or `.pt` file by name; nothing in it is executed.

    Raises WeightsError when the file cannot be read as such.
    """
    if not path.is_file():
        raise UsageError(f"there is no weights file at {path}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if path.suffix in (".pth", ".pt"):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
            return _tensors_of(content, path)
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a valid safetensors file: {error}") from error
    except Exception as error:  # torch.load has no error type of its own for damaged or hostile files
        if isinstance(error, WeightsError | MemoryError):
            raise
        raise WeightsError(
            f"{path} cannot be read as plain tensors (weights_only): {first_line(error)}"
        ) from error
    raise UsageError(f"{path.suffix or path} files are not read; give a .safetensors, .pth or .pt file")


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in ("state_dict", "model"):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise WeightsError(f"{path} holds no state_dict: save one with torch.save(model.state_dict(), ...)")


def match_tensors(network: Network, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ImportReport]:
    """The file's tensors under our names and in our layout, and what did not fit."""
    wanted = network.state_dict()
    key_map = choose_key_map(set(tensors), set(wanted))
    matched: dict[str, Tensor] = {}
    missing: list[str] = []
    mis_shaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    used: set[str] = set()
    for name, ours in wanted.items():
        theirs = key_map.names.get(name, name)
        if theirs not in tensors:
            missing.append(name)
            continue
        used.add(theirs)
        value = key_map.convert(tensors[theirs], ours)
        if value.shape == ours.shape:
            matched[name] = value.to(ours.dtype).contiguous()
        else:
            mis_shaped.append((name, tuple(value.shape), tuple(ours.shape)))
    unexpected = tuple(sorted(set(tensors) - used))
    return matched, ImportReport(tuple(missing), unexpected, tuple(mis_shaped))


def import_weights(path: Path, name: str, labels: Path | None = None) -> tuple[Bundle, ImportReport]:
    """Read the weights at `path` into network `name` and make a bundle of them.

    The number of classes, and whether there are auxiliary heads, are taken from the file. Labels come from
    `labels` (one a line), else from `<stem>.synsets.txt` or `<stem>.labels.txt` beside the weights, else
    torchvision's ImageNet names where they fit, else `class 0`, `class 1`, …

    Raises WeightsError listing the tensors when the file does not fill the network.
    """
    name = canonical_name(name)
    tensors = read_tensors(path)
    network, matched, report = _best_fit(name, tensors)
    if not report.complete:
        raise WeightsError(f"{path} does not fill {name}: {describe(report)}")
    if network.num_classes < 1:
        raise WeightsError(f"{path} has a classifier without outputs (fc.weight)")
    names = read_labels(labels or _labels_beside(path), network.num_classes, name)
    provenance = {"imported_from": path.name, "source_sha256": sha256_file(path)}
    bundle = Bundle(
        network=name,
        arguments=network.arguments,
        labels=names,
        preprocess=PREPROCESSING[name],
        state_dict=matched,
        provenance=provenance,
    )
    return bundle, report


def _best_fit(name: str, tensors: Mapping[str, Tensor]) -> tuple[Network, dict[str, Tensor], ImportReport]:
    """Build `name` to the file's number of classes, with auxiliary heads only if the file completes them."""
    classifiers = [
        tensors[key].shape[0] for key in ("fc.weight", "softmax2_w") if key in tensors and tensors[key].dim()
    ]
    classes = {"num_classes": classifiers[0]} if classifiers else {}
    # Only names and shapes are needed, so no memory is: a file may claim any number of classes.
    with torch.device("meta"):
        network = build_network(name, aux_logits=bool(ARCHITECTURES[name].aux_heads), **classes)
        matched, report = match_tensors(network, tensors)
        if any(key.startswith("aux") for key in report.missing):
            network = build_network(name, aux_logits=False, **classes)
            matched, report = match_tensors(network, tensors)
    return network, matched, report


def describe(report: ImportReport, limit: int = 8) -> str:
    """One line naming the tensors that did not fit, at most `limit` of each kind."""
    shapes = [f"{name} {list(got)} for {list(want)}" for name, got, want in report.mis_shaped]
    parts = {"missing": report.missing, "mis-shaped": shapes, "unexpected": report.unexpected}
    texts = []
    for kind, names in parts.items():
        if names:
            rest = f" and {len(names) - limit} more" if len(names) > limit else ""
            texts.append(f"{len(names)} {kind} ({', '.join(names[:limit])}{rest})")
    return "; ".join(texts) or "every tensor fits"


def _labels_beside(path: Path) -> Path | None:
    candidates = [path.with_name(path.stem + suffix) for suffix in LABEL_SUFFIXES]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_labels(path: Path | None, count: int, name: str) -> tuple[str, ...]:
    """`count` class names: lines of `path`, or torchvision's ImageNet names, or numbers.

    For `googlenet_5h` lines after 1000 are replaced by `(unused i)`: those outputs were never trained.
    """
    if path is None:
        if name == "googlenet_tv" and count == 1000:
            from torchvision.models import GoogLeNet_Weights

            return tuple(GoogLeNet_Weights.IMAGENET1K_V1.meta["categories"])
        return tuple(f"class {index}" for index in range(count))
    if not path.is_file():
        raise UsageError(f"there is no label file at {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text: {error}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < count:
        raise UsageError(f"{path} has {len(lines)} labels, the network has {count} outputs")
    if name == "googlenet_5h" and count == 1008:
        return ("(dummy)", *lines[1:1001], *(f"(unused {index})" for index in range(1001, count)))
    return tuple(lines[:count])
