"""Foreign weights in: from a file somebody else wrote to a bundle."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inception.data.preprocess import Preprocess
from inception.errors import UsageError, WeightsError
from inception.files import read_regular, sha256_file
from inception.nets.endpoints import resolve_endpoint
from inception.nets.network import Network
from inception.nets.registry import ARCHITECTURES, build_network, canonical_name
from inception.weights.bundle import Bundle
from inception.weights.formats.foreign import Foreign
from inception.weights.formats.prefixes import without_prefixes
from inception.weights.formats.recognize import files_of, read_foreign
from inception.weights.heads import ADVICE, plain_head, plain_weights
from inception.weights.likely import likely_network, roots_of
from inception.weights.matching import (
    PAIR,
    ImportReport,
    channels_in_file,
    describe,
    kept_rows,
    match_tensors,
    outputs_in_file,
)
from inception.weights.preprocessing import PREPROCESSING, PreprocessChanges, as_grey, in_words
from inception.weights.sources.choose import choose_source, computed_layers, find, sources_of
from inception.weights.sources.source import TORCH_FORMATS, Source

LABEL_SUFFIXES = (".synsets.txt", ".labels.txt")
CONFIG_LIMIT_BYTES, LABELS_LIMIT_BYTES = 1 << 20, 16 << 20
PARTIAL_NUMBERS = 1 << 28
"""Numbers (1 GB) that a network filled up with fresh weights may have."""


@dataclass(frozen=True)
class _Fit:
    """A network's description (without memory for weights), and what of it the file fills."""

    network: Network
    tensors: dict[str, Tensor]
    report: ImportReport
    source: Source
    remarks: tuple[str, ...]
    pair: bool
    refusal: str | None
    """Why the file's head is none that the network could have."""

    @property
    def unfit(self) -> list[str]:
        """Our tensors that the file does not have in their shape."""
        return [*self.report.missing, *(key for key, *_ in self.report.mis_shaped)]

    @property
    def only_head_unfit(self) -> bool:
        """Whether all but the last layers fit."""
        return all(key.startswith(("fc.", "head.")) for key in self.unfit)


def import_weights(
    path: Path,
    name: str,
    labels: Path | None = None,
    *,
    partial: str | None = None,
    tool: str | None = None,
    background: str | None = None,
    preprocess: Preprocess | PreprocessChanges | None = None,
    ema: bool = False,
    allow_nonfinite: bool = False,
) -> tuple[Bundle, ImportReport]:
    """Read the weights at `path` into network `name` and make a bundle of them.

    The format, the tool that wrote it, the number of classes, and whether there are auxiliary heads, are
    taken from the file.

    Args:
        path: a file of any format of `docs/weights.md`; of a TensorFlow checkpoint any file, or the prefix.
        name: network the weights belong to.
        labels: class names, one a line (of a file with one output the two of 0 and of 1); else
            `<stem>.synsets.txt` or `<stem>.labels.txt` beside the weights, else ImageNet's names where they
            fit, else `class 0`, `class 1`, …
        partial: name of a stage: everything up to it must be in the file, the rest may be missing and is then
            left with fresh weights. An empty text: anything may be missing.
        tool: whose form of the file it is, where names alone do not tell.
        background: `keep` or `drop` outputs that are no class; None: drop output 0 of 1001.
        preprocess: what the weights expect, where the tool's usual is wrong; or what of it is to change.
        ema, allow_nonfinite: take a PyTorch checkpoint's averaged weights; accept NaN and infinity.

    Raises WeightsError listing the tensors when the file does not fill the network, UsageError for a wrong
    request.
    """
    name = canonical_name(name)
    labels = labels or _labels_beside(path)
    foreign = read_foreign(path, ema)
    lines = len(_label_lines(labels)) if labels else None
    fit = _best_fit(name, foreign, tool, background, lines if partial is not None else None)
    _check(path, fit, allow_nonfinite, lines)
    chosen, said = _preprocess(path, fit, preprocess)
    tensors, remarks = fit.tensors, [*foreign.notes, *fit.remarks, *said]
    provenance: dict[str, Any] = {
        "imported_from": path.name,
        "source_sha256": sha256_file(files_of(path)[-1]),
        "tool": fit.source.tool,
        "format": foreign.format,
    }
    fresh: list[str] = []
    if partial is not None:
        tensors, fresh = _completed(fit, path, partial)
        provenance["partial"] = {"up_to": partial or None, "fresh": fresh}
        remarks.append(f"{len(fresh)} tensors are not from the file but fresh")
        remarks += [f"left out: {fit.refusal.partition(': ')[0]}"] if fit.refusal else []
    elif not fit.report.complete:
        raise WeightsError(_misfit(path, name, fit, foreign))
    if remarks:
        provenance["remarks"] = remarks
    ordered = fit.source.imagenet_order and "fc.weight" not in fresh
    bundle = Bundle(
        network=name,
        arguments=fit.network.arguments,
        labels=read_labels(labels, fit.network.num_classes, ordered),
        preprocess=chosen,
        state_dict=tensors,
        provenance=provenance,
    )
    bundle.check_fit(fit.network)
    return bundle, fit.report


def _misfit(path: Path, name: str, fit: _Fit, foreign: Foreign) -> str:
    """Why the file does not fill the network, and what to do about it."""
    if fit.refusal and fit.only_head_unfit:
        return f"{path}: {fit.refusal}"
    advice = (
        f"; only the head does not fit: {ADVICE}" if fit.only_head_unfit else likely_network(foreign, name)
    )
    return f"{path} does not fill {name}: {describe(fit.report)}{advice}"


def _preprocess(
    path: Path, fit: _Fit, asked: Preprocess | PreprocessChanges | None
) -> tuple[Preprocess, list[str]]:
    """What the weights expect of an image, and what was assumed of it."""
    if isinstance(asked, Preprocess):
        return asked, []
    beside, grey = _preprocess_beside(path), fit.network.in_chans == 1
    usual = beside or fit.source.preprocess
    usual = as_grey(usual) if grey else usual
    notes = ["the first convolution takes 1 channel: images are made grey"] if grey else []
    if asked is not None:
        usual = asked.apply(usual)
        if asked.of_pixels:
            return usual, [*notes, f"preprocessing as given: {in_words(usual)}"]
    if beside is None:
        tool = fit.source.tool
        owner = "this network's own" if tool == "inception" else f"{tool}'s"
        notes.append(
            f"the file does not say its preprocessing: {owner} is assumed ({in_words(usual)}); for another: "
            "--preprocess imagenet, inception, caffe, none or a file; --mean, --std, --size"
        )
        notes += [fit.source.preprocess_note] if fit.source.preprocess_note else []
    return usual, notes


def _check(path: Path, fit: _Fit, allow_nonfinite: bool, labels: int | None) -> None:
    if fit.pair and labels != 2:
        given = f" (it has {labels} lines)" if labels is not None else ""
        raise WeightsError(
            f"{path} has one output, which by its sigmoid tells two classes apart: give --labels a file of "
            f"two lines{given}, first the class that is 0, then the class that is 1"
        )
    if fit.network.in_chans not in (1, 3):
        raise WeightsError(
            f"{path}: the first convolution takes {fit.network.in_chans} channels: bundles answer colour "
            "images (3 channels) and grey ones (1); train a network for such images"
        )
    if fit.network.num_classes < 1:
        raise WeightsError(f"{path} has a classifier without outputs (fc.weight)")
    if allow_nonfinite:
        return
    for name, value in fit.tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise WeightsError(
                f"{path}: {name} holds NaN or infinity (did training diverge?): take an earlier checkpoint, "
                "or --allow-nonfinite"
            )


def _shapes(name: str, aux: bool, arguments: Mapping[str, Any]) -> Network:
    """The network without memory: a file may claim any number of classes."""
    with torch.device("meta"):
        return build_network(name, aux_logits=aux, **arguments)


def _best_fit(
    name: str, foreign: Foreign, tool: str | None, background: str | None, classes: int | None
) -> _Fit:
    """Describe `name` as the file has it: its classes and channels, auxiliary heads only if complete.

    `classes` are those of a fresh head, where the file has none.
    """
    has_heads = bool(ARCHITECTURES[name].aux_heads)
    names = list(_shapes(name, has_heads, {}).state_dict())
    sources = sources_of(name, PREPROCESSING[name])
    foreign, said = _unwrapped(foreign, sources, names)
    source = choose_source(name, sources, foreign, names, tool)
    foreign, headed, refusal = _with_plain_head(foreign, source, names)
    outputs = outputs_in_file(source, foreign, names)
    rows, remark = kept_rows(outputs, source, background)
    arguments = dict(source.arguments)
    if outputs is not None:
        arguments["num_classes"] = (
            2 if rows == PAIR else rows.stop - rows.start if isinstance(rows, slice) else outputs
        )
    elif classes:
        arguments["num_classes"] = classes
    channels = channels_in_file(_shapes(name, has_heads, arguments), source, foreign)
    if channels != 3:
        arguments["in_chans"] = channels
    network = _shapes(name, has_heads, arguments)
    matched, report = match_tensors(network, foreign, source, rows)
    if any(key.startswith("aux") for key in (*report.missing, *(key for key, *_ in report.mis_shaped))):
        network = _shapes(name, False, arguments)
        matched, report = match_tensors(network, foreign, source, rows)
    remarks = [*said, *headed, remark, source.note or None]
    if source.by_order:
        remarks.append("layers matched by their order, not by name")
    said = [text for text in remarks if text]
    return _Fit(network, matched, report, source, tuple(said), rows == PAIR, refusal)


def _unwrapped(foreign: Foreign, sources: tuple[Source, ...], names: list[str]) -> tuple[Foreign, list[str]]:
    """The tensors without a prefix that no form of this network has, where more of them are known then."""
    fitting = [source for source in sources if foreign.format in source.formats and not source.by_order]
    if foreign.format not in TORCH_FORMATS or not fitting:
        return foreign, []

    def hits(tensors: Mapping[str, Tensor]) -> int:
        return max(sum(find(one, one.layers, key, tensors) is not None for key in names) for one in fitting)

    roots = set().union(*(roots_of(source, names) for source in fitting))
    tensors, notes = without_prefixes(dict(foreign.tensors), lambda first: first not in roots)
    if not notes or hits(tensors) <= hits(foreign.tensors):
        return foreign, []
    return replace(foreign, tensors=tensors), notes


def _without_more_layers(foreign: Foreign, count: int) -> tuple[Foreign, list[str], str | None]:
    """Where layers are matched by order: no layer may come behind the network's last one."""
    more = foreign.layers[count:]
    if not more:
        return foreign, [], None
    last = f"{foreign.layers[count - 1]}."
    rest = {key: value for key, value in foreign.tensors.items() if not key.startswith(last)}
    refusal = f"the head is more than one linear layer ({more[0]} comes behind the network's last): {ADVICE}"
    return replace(foreign, tensors=rest), [], refusal


def _with_plain_head(
    foreign: Foreign, source: Source, names: list[str]
) -> tuple[Foreign, list[str], str | None]:
    """The tensors with one linear layer as their head, where the network has one.

    Returns also what was done, and why there is no such head; the tensors are then without any.
    """
    keras = foreign.format == "keras"
    if source.by_order:
        return _without_more_layers(foreign, len(computed_layers(names)))
    if "fc.weight" not in names or not (keras or foreign.format in TORCH_FORMATS):
        return foreign, [], None
    tensors = foreign.tensors if keras else plain_weights(foreign.tensors)
    found = (find(source, source.layers, key, tensors) for key in names if not key.startswith("fc."))
    used = {key for key in found if key is not None}
    base = source.layers.get("fc", "fc")
    try:
        tensors, notes = plain_head(tensors, base, used, keras)
    except WeightsError as error:
        own = (f"{base}.", f"{base}/")
        rest = {key: value for key, value in tensors.items() if not key.startswith(own)}
        return replace(foreign, tensors=rest), [], str(error)
    return replace(foreign, tensors=tensors), notes, None


def _completed(fit: _Fit, path: Path, up_to: str) -> tuple[dict[str, Tensor], list[str]]:
    """The file's tensors, fresh ones (from a fixed seed) for those not there, and the names of these."""
    network = fit.network
    unfit = fit.unfit
    if up_to:
        stage = resolve_endpoint(up_to, network.endpoints, network.aliases)
        needed = network.endpoints[: network.endpoints.index(stage) + 1]
        absent = [key for key in unfit if key.partition(".")[0] in needed]
        if absent:
            rest = ", …" if len(absent) > 8 else ""
            raise WeightsError(
                f"{path} does not fill the network up to {stage}: {len(absent)} tensors are missing or of "
                f"another shape ({', '.join(absent[:8])}{rest})"
            )
    if all(key.endswith("num_batches_tracked") for key in fit.tensors):  # these count as found everywhere
        raise WeightsError(f"{path} has no tensor of this network: {describe(fit.report)}")
    if sum(value.numel() for value in network.state_dict().values()) > PARTIAL_NUMBERS:
        raise WeightsError(
            f"{path} claims {network.num_classes} classes: too many to fill up with fresh weights"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = build_network(network.architecture, num_classes=network.num_classes, **network.arguments)
    return {**fresh.state_dict(), **fit.tensors}, unfit


def _labels_beside(path: Path) -> Path | None:
    candidates = [path.with_name(path.stem + suffix) for suffix in LABEL_SUFFIXES]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _preprocess_beside(path: Path) -> Preprocess | None:
    """What timm's `config.json` beside the weights says, or a bundle's own description; None without one."""
    for config, read in (
        (path.with_name("config.json"), _of_timm),
        (path.with_name("bundle.json"), _of_bundle),
    ):
        if not config.is_file():
            continue
        try:
            return read(json.loads(read_regular(config, CONFIG_LIMIT_BYTES)))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue  # another tool's file
        except UsageError as error:
            raise UsageError(f"{config}: {error}") from error
    return None


def _of_timm(content: Any) -> Preprocess:
    values = content["pretrained_cfg"]
    channels, height, width = values["input_size"]
    mean, std = tuple(values["mean"]), tuple(values["std"])
    return Preprocess(
        height=height,
        width=width,
        resize="shortest",
        crop_fraction=values["crop_pct"],
        interpolation=values["interpolation"],
        color="L" if channels == len(mean) == 1 else "RGB",
        mean=mean,
        std=std,
    )


def _of_bundle(content: Any) -> Preprocess:
    return Preprocess.from_dict(content["preprocess"])


_BACKGROUND = re.compile(r"\W*(background|dummy)\W*", re.IGNORECASE)


def read_labels(path: Path | None, count: int, imagenet_order: bool = False) -> tuple[str, ...]:
    """`count` class names: lines of `path`, or ImageNet's names in the usual order, or numbers.

    Of 1008 outputs 0 and those after 1000 were never trained, whatever a file says of them. A first line for
    the background is left out where the network has one output less than the file has lines. Raises
    UsageError for any other number of lines.
    """
    if path is None:
        if imagenet_order and count in (1000, 1001):
            from torchvision.models import GoogLeNet_Weights

            names = tuple(GoogLeNet_Weights.IMAGENET1K_V1.meta["categories"])
            return names if count == 1000 else ("(background)", *names)
        return tuple(f"class {index}" for index in range(count))
    lines = _label_lines(path)
    if len(lines) == count + 1 and (count == 1000 or _BACKGROUND.fullmatch(lines[0])):
        lines = lines[1:]
    fits = len(lines) >= 1001 if count == 1008 else len(lines) == count
    if not fits:
        raise UsageError(f"{path} has {len(lines)} labels, the network has {count} outputs")
    if count == 1008:
        return ("(dummy)", *lines[1:1001], *(f"(unused {index})" for index in range(1001, count)))
    return tuple(lines)


def _label_lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UsageError(f"there is no label file at {path}")
    try:
        text = read_regular(path, LABELS_LIMIT_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


__all__ = ["ImportReport", "describe", "import_weights", "read_labels"]
