"""Everything a run needs before its first step: folder, data, network, preprocessing, device."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from inception.data.loader import Loader
from inception.data.preprocess import Preprocess
from inception.data.sources import Dataset, open_dataset
from inception.errors import DataError, UsageError
from inception.files import lies_inside
from inception.nets.endpoints import resolve_endpoint
from inception.nets.network import Network
from inception.nets.registry import build_network, canonical_name
from inception.runtime.device import choose_device, choose_precision, place
from inception.train.checkpoint import CHECKPOINT_FOLDER, list_checkpoints, read_config_of
from inception.train.choose import Candidate, candidates
from inception.train.config import DEFAULT_NETWORK, TrainConfig, resolve, unused_by_probe
from inception.train.layers import EVERYTHING
from inception.train.log import METRICS_FILE, Observer
from inception.train.native.library import reason_without
from inception.train.optimizer import is_batch_normalized
from inception.train.ranks import ALONE, Ranks, own_device
from inception.train.recipes import SMALL_IMAGE, label_of
from inception.train.trainee import Setting
from inception.train.whiten import whiten
from inception.weights.bundle import Bundle, load_bundle

SIDE_SAMPLES = 32
WHITEN_SAMPLES = 2000
# A resumed run is the same run: only these may be said anew.
RESUMABLE = (
    "data",
    "data_root",
    "weights",
    "output",
    "resume",
    "device",
    "workers",
    "cache_gib",
    "cache_folder",
    "strict",
    "checkpoint_seconds",
    "checkpoint_steps",
    "keep_checkpoints",
)
OLD_CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start.

    Attributes:
        config: with every automatic choice made.
        dataset: what is trained on.
        setting: where it computes, reads and writes.
        network: on its device, in training mode.
        fresh_head: whether the classifier is new while the rest comes from a bundle.
        candidates: ways to fine-tune that validation is to decide between; empty where it is decided.
    """

    config: TrainConfig
    dataset: Dataset
    setting: Setting
    network: Network
    fresh_head: bool
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A run on paper: what was asked, what that becomes, and the data.

    Attributes:
        asked: what the user asked (of a resumed run, what it was started with).
        config: with every automatic choice made.
        resumed: whether it continues a run.
        start: the bundle it starts from.
        dataset: what is trained on.
        train: its training images.
    """

    asked: TrainConfig
    config: TrainConfig
    resumed: bool
    start: Bundle | None
    dataset: Dataset
    train: Loader


def plan(
    config: TrainConfig, observer: Observer, ranks: Ranks = ALONE, said: Collection[str] | None = None
) -> Plan:
    """Check the request, open the data, make every automatic choice; nothing is written.

    `said` names the options that a resumed run was given anew; None: those that are not the default.
    """
    if ranks.count > 1 and not config.output:
        raise UsageError("several processes must agree on the run folder: give --output FOLDER")
    resumed = _resumed(config, said)
    asked = resumed or config
    start = load_bundle(asked.weights) if asked.weights else None
    _check_start(asked, start)
    dataset = _open_data(asked, observer)
    balanced = asked.class_balance == "sampling"
    loader = Loader(
        dataset,
        dataset.split("train"),
        asked.workers,
        asked.strict,
        cache_bytes=int(asked.cache_gib * 2**30),
        cache_folder=Path(asked.cache_folder) if asked.cache_folder else None,
        rank=ranks.rank,
        ranks=ranks.count,
        balanced=balanced,
    )
    if len(loader) == 0:
        raise DataError(f"{asked.data} has no training images")
    if dataset.multilabel:
        asked = _for_labels(asked, ranks)
    if asked.find_learning_rate and resumed is None and (asked.learning_rate or asked.freeze):
        other = "freeze" if asked.freeze else "learning-rate"
        raise UsageError(f"--find-learning-rate and --{other} exclude each other: drop one of them")
    config = asked
    device = choose_device(asked.device).type
    if resumed is None:
        without = "" if asked.kernels == "no" else reason_without(device)
        if asked.kernels == "yes" and without:
            raise UsageError(f"--kernels yes cannot be had: {without}")
        config = resolve(
            asked,
            len(loader),
            _typical_side(loader),
            start.preprocess.height if start else 0,
            dataset.flip_safe,
            normalized=_is_normalized(start.network if start else asked.model or DEFAULT_NETWORK),
            cuda=device == "cuda",
            kernels=not without,
        )
    elif asked.kernels == "yes" and (without := reason_without(device)):
        observer.message(f"going on without compiled kernels, so with other rounding: {without}")
        config = replace(config, kernels="no")
    return Plan(asked, config, resumed is not None, start, dataset, loader)


def prepare(
    config: TrainConfig, observer: Observer, ranks: Ranks = ALONE, said: Collection[str] | None = None
) -> Prepared:
    """Plan the run (see `plan`), build the network; the run folder is made last."""
    unused = unused_by_probe(config)
    planned = plan(config, observer, ranks, said)
    config, start, dataset = planned.config, planned.start, planned.dataset
    folder = Path(config.output or _default_folder(config, start))
    if not config.resume:
        _refuse_used(folder)
        _refuse_inside(folder, Path(config.data))
    torch.manual_seed(config.seed)
    preprocess = _choose_preprocess(config, start)
    network = _build(config, start, dataset, preprocess)
    if config.unfreeze not in ("", EVERYTHING):
        resolve_endpoint(config.unfreeze, network.endpoints, network.aliases)
    validated = bool(dataset.split("val"))
    _check_batches(config, ranks, validated)
    if config.whiten == "yes":
        whiten(network, preprocess.normalize(_spread_images(planned.train, preprocess)))
    setting = _make_setting(config, folder, dataset, planned.train, preprocess, observer, ranks)
    observer.message(_described(network, config, setting))
    if config.freeze and unused and not planned.resumed:
        observer.message(f"a linear probe takes no steps, so these say nothing to it: {', '.join(unused)}")
    # A convolutional classifier (Network in Network's) is not one that a probe could solve.
    linear = isinstance(network.fc, nn.Linear)
    fresh_head = start is not None and _other_answers(start, dataset) and linear
    tried = candidates(planned.asked, config, network) if validated and not planned.resumed else ()
    return Prepared(config, dataset, setting, place(network, setting.device), fresh_head, tried)


def _described(network: Network, config: TrainConfig, setting: Setting) -> str:
    length = "linear probe" if config.freeze else f"{config.epochs} epoch{'s' * (config.epochs != 1)}"
    dataset, preprocess = setting.train.dataset, setting.preprocess
    several = ", several labels an image" if dataset.multilabel else ""
    return (
        f"{network.architecture}: {len(setting.train)} training images, "
        f"{len(setting.val) if setting.val else 0} for validation, {len(dataset.labels)} classes{several}, "
        f"{preprocess.height}x{preprocess.width}, recipe {label_of(config.recipe)}, {length}, "
        f"{setting.device.type} {setting.precision}"
    )


def _other_answers(start: Bundle, dataset: Dataset) -> bool:
    """Whether the bundle's classifier is of no use for the data."""
    return start.labels != dataset.labels or (start.thresholds is not None) != dataset.multilabel


def _for_labels(config: TrainConfig, ranks: Ranks) -> TrainConfig:
    """The options of a run with several labels an image. Raises UsageError for those without a meaning."""
    refused = {
        f"--class-balance {config.class_balance}": (
            config.class_balance != "none",
            "an image belongs to several classes at once",
        ),
        "several processes": (ranks.count > 1, "average precision needs every answer in one process"),
    }
    for name, (wished, reason) in refused.items():
        if wished:
            raise UsageError(f"{name} cannot be had with several labels an image: {reason}")
    automatic = config.label_smoothing < 0.0
    return replace(config, label_smoothing=0.0) if automatic else config


def _open_data(asked: TrainConfig, observer: Observer) -> Dataset:
    dataset = open_dataset(
        asked.data,
        options=asked.reading(),
        data_root=Path(asked.data_root) if asked.data_root else None,
        val_fraction=asked.val_fraction,
        seed=asked.seed,
        progress=observer.downloading,
    )
    for note in dataset.notes:
        observer.message(note)
    for line in dataset.left_out_lines():
        observer.message(line)
    dataset.require_most(asked.allow_left_out)
    return dataset


def _resumed(config: TrainConfig, said: Collection[str] | None) -> TrainConfig | None:
    """The configuration of the run to continue, or None when this is a new one."""
    if not config.data and not config.resume:
        raise UsageError("say what to train on: a folder, an archive, a CSV or a named set")
    if not config.resume:
        return None
    if not config.output:
        raise UsageError("say which run to resume: --output FOLDER")
    folder = Path(config.output) / CHECKPOINT_FOLDER
    if not list_checkpoints(folder):
        if (folder.parent / OLD_CHECKPOINT).exists():
            raise UsageError(
                f"{folder.parent} was begun with version 0.1.0, whose checkpoints this version does not "
                "read: start a new run with another --output"
            )
        if not config.data:
            raise UsageError(f"there is no run to resume in {config.output}: say what to train on")
        return None
    saved = TrainConfig.from_dict(read_config_of(folder))
    given = config.given() if said is None else {name: getattr(config, name) for name in said}
    for name, value in given.items():
        if name not in RESUMABLE and value != getattr(saved, name):
            raise UsageError(
                f"{config.output} was started with {name} {getattr(saved, name)}, not {value}: "
                "a resumed run keeps its options; start a new one with another --output"
            )
    return replace(saved, **{name: value for name, value in given.items() if name in RESUMABLE})


def _check_start(config: TrainConfig, start: Bundle | None) -> None:
    if start is None:
        for name in ("freeze", "unfreeze"):
            if getattr(config, name):
                raise UsageError(f"--{name} needs a trained network: give --weights BUNDLE")
        if config.batch_norm == "frozen":
            raise UsageError("--batch-norm frozen needs statistics to keep: give --weights BUNDLE")
        return
    if config.whiten == "yes":
        raise UsageError("--whiten replaces the first convolution of a fresh network: drop --weights or it")
    if config.model and canonical_name(config.model) != start.network:
        raise UsageError(
            f"--model {config.model}, but {config.weights} holds a {start.network}: drop --model"
        )
    if config.width != 1.0:
        raise UsageError(f"--width cannot change the network in {config.weights}: drop it")


def _is_normalized(name: str) -> bool:
    with torch.device("meta"):
        return is_batch_normalized(build_network(name))


def _default_folder(config: TrainConfig, start: Bundle | None) -> str:
    network = start.network if start else canonical_name(config.model)
    return f"runs/{Path(config.data).resolve().stem}-{network}"


def _refuse_used(folder: Path) -> None:
    log = folder / METRICS_FILE  # empty where a run failed before its first epoch
    if (log.exists() and log.stat().st_size > 0) or list_checkpoints(folder / CHECKPOINT_FOLDER):
        raise UsageError(
            f"{folder} holds a run already: continue it with --resume, or choose another --output"
        )


def _refuse_inside(folder: Path, data: Path) -> None:
    if lies_inside(folder, data):
        raise UsageError(
            f"the run folder {folder} would lie inside the data {data}, whose images its pictures join: "
            "choose an --output outside"
        )


def _check_batches(config: TrainConfig, ranks: Ranks, validated: bool) -> None:
    if config.patience and not validated:
        raise UsageError("--patience needs a val split: set one aside with --val-fraction")
    if ranks.count > config.batch_size:
        raise UsageError(f"--batch-size {config.batch_size} is too small for {ranks.count} processes")
    if config.accumulation * ranks.count > config.batch_size:
        raise UsageError(
            f"--accumulation {config.accumulation} leaves parts without images: "
            f"a step has {config.batch_size}, in {ranks.count} process{'es' * (ranks.count != 1)}"
        )
    mixed = config.mixup or config.cutmix
    if mixed and config.freeze:
        raise UsageError("--freeze trains on features computed once: drop --mixup and --cutmix")
    if config.freeze and config.class_balance != "none":
        raise UsageError("--freeze solves the classifier on every image once: drop --class-balance")


def _make_setting(
    config: TrainConfig,
    folder: Path,
    dataset: Dataset,
    loader: Loader,
    preprocess: Preprocess,
    observer: Observer,
    ranks: Ranks,
) -> Setting:
    device = own_device(choose_device(config.device))
    precision = choose_precision(config.precision, device)
    val_samples = dataset.split("val")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the run folder {folder}: {error.strerror or error}") from error
    return Setting(
        folder=folder,
        device=device,
        precision=precision,
        preprocess=preprocess,
        train=loader,
        val=replace(loader, samples=val_samples, unreadable={}, balanced=False, _kept=None)
        if val_samples
        else None,
        observer=observer,
        ranks=ranks,
    )


def _spread(loader: Loader, count: int, preprocess: Preprocess) -> list[Image.Image]:
    """About `count` of the training images from all over the set; unreadable ones are left out."""
    images = []
    for position in np.linspace(0, len(loader) - 1, min(count, len(loader))).astype(int):
        try:
            images.append(loader.image(int(position), preprocess))
        except DataError:
            continue
    if not images:
        raise DataError(f"none of the sampled images of {loader.dataset.name} can be read")
    return images


def _typical_side(loader: Loader) -> int:
    """Median of the shorter sides of a few training images, in pixels."""
    return int(np.median([min(image.size) for image in _spread(loader, SIDE_SAMPLES, Preprocess())]))


def _spread_images(loader: Loader, preprocess: Preprocess) -> Tensor:
    """Some training images as the network's uint8 input, N x C x H x W."""
    return torch.stack([preprocess.apply(image) for image in _spread(loader, WHITEN_SAMPLES, preprocess)])


def _choose_preprocess(config: TrainConfig, start: Bundle | None) -> Preprocess:
    base = start.preprocess if start else Preprocess()
    base = replace(base, bits=config.bits or base.bits)
    if base.height == config.image_size:
        return base
    return replace(base, height=config.image_size, width=config.image_size)


def _build(config: TrainConfig, start: Bundle | None, dataset: Dataset, preprocess: Preprocess) -> Network:
    classes = len(dataset.labels)
    if start is not None:
        network = start.build()
        if _other_answers(start, dataset):
            network.reset_classifier(classes)
        if config.freeze and not isinstance(network.fc, nn.Linear):
            raise UsageError(f"{network.architecture} has no linear classifier: --freeze cannot solve it")
    else:
        options: dict[str, Any] = {} if config.width == 1.0 else {"width": config.width}
        network = build_network(
            config.model,
            num_classes=classes,
            stem="small" if preprocess.height <= SMALL_IMAGE else "large",
            in_chans=preprocess.in_chans,
            **options,
        )
    if min(preprocess.height, preprocess.width) < network.min_size:
        raise UsageError(
            f"--image-size {config.image_size} is too small for {network.architecture}: "
            f"it needs at least {network.min_size}"
        )
    if config.dropout >= 0.0:
        network.dropout.p = config.dropout
    return network
