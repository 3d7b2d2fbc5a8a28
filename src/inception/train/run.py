"""A training run from start to end: data, network, probe, loop, bundle."""

import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import inception
from inception.data.loader import Loader
from inception.data.preprocess import Preprocess
from inception.data.sources import Dataset, open_dataset
from inception.errors import DataError, UsageError
from inception.evaluate.calibration import fit_temperature, unknown_threshold
from inception.evaluate.measure import collect_logits
from inception.evaluate.metrics import evaluate_logits
from inception.nets.network import Network
from inception.nets.registry import build_network
from inception.runtime.classifier import Classifier
from inception.runtime.device import autocast, choose_device, choose_precision, place
from inception.train.checkpoint import CHECKPOINT_FILE, Progress, read_config_of
from inception.train.config import SMALL_IMAGE, TrainConfig, resolve
from inception.train.interrupt import stop_on_signals
from inception.train.log import METRICS_FILE, MetricsLog, Observer, Row, Silent
from inception.train.loop import EVALUATION_BATCH, Setting, TrainingLoop
from inception.train.probe import fit_probe
from inception.weights.bundle import Bundle, load_bundle, save_bundle

BUNDLE_FOLDER = "bundle"
SIDE_SAMPLES = 32


@dataclass(frozen=True)
class TrainResult:
    """What a run left.

    Attributes:
        folder: the run folder.
        bundle: path of the bundle in it.
        metrics: of the bundle on the val split (empty without one): top1, top5, loss, n.
        best_epoch: the epoch the bundle's weights are from; 0 is the linear probe.
        unreadable: skipped training images and why.
    """

    folder: Path
    bundle: Path
    metrics: dict[str, Any]
    best_epoch: int
    unreadable: dict[str, str]


def train_bundle(config: TrainConfig, observer: Observer | None = None) -> TrainResult:
    """Train a classifier and leave its bundle, metrics.jsonl and curves in the run folder.

    Raises UsageError or DataError for what cannot be trained on, TrainingError when the loss is not finite,
    Interrupted when it was asked to stop (everything is saved).
    """
    observer = observer or Silent()
    config, folder = _open_folder(config)
    dataset = open_dataset(config.data, val_fraction=config.val_fraction, seed=config.seed)
    loader = Loader(dataset, dataset.split("train"), config.workers, config.strict)
    if len(loader) == 0:
        raise DataError(f"{config.data} has no training images")
    torch.manual_seed(config.seed)
    start = load_bundle(config.weights) if config.weights else None
    config = resolve(config, len(loader), _typical_side(loader), dataset.flip_safe)
    preprocess = _choose_preprocess(config, start, loader)
    network = _build(config, start, dataset, preprocess)
    val_samples = dataset.split("val")
    device = choose_device(config.device)
    setting = Setting(
        folder=folder,
        device=device,
        precision=choose_precision(config.precision, device),
        preprocess=preprocess,
        train=loader,
        val=Loader(dataset, val_samples, config.workers, config.strict) if val_samples else None,
        observer=observer,
    )
    observer.message(
        f"{network.architecture}: {len(loader)} training images, {len(val_samples)} for validation, "
        f"{len(dataset.labels)} classes, {preprocess.height}x{preprocess.width}, {config.epochs} epochs, "
        f"{setting.device.type} {setting.precision}"
    )
    fresh_head = start is not None and start.labels != dataset.labels
    return _Run(config, dataset, setting, network, fresh_head).go()


class _Run:
    def __init__(
        self, config: TrainConfig, dataset: Dataset, setting: Setting, network: Network, fresh_head: bool
    ) -> None:
        self.config, self.dataset, self.setting = config, dataset, setting
        self.network, self.fresh_head = network, fresh_head
        self.path = setting.folder / BUNDLE_FOLDER

    def go(self) -> TrainResult:
        checkpoint = self.setting.folder / CHECKPOINT_FILE
        resuming = self.config.resume and checkpoint.exists()
        place(self.network, self.setting.device)
        first_row: Row | None = None
        if (self.fresh_head or self.config.freeze) and not resuming:
            first_row = self._probe()
        loop = TrainingLoop(self.network, self.config, self.setting, self._keep)
        if resuming:
            loop.resume()
        log = MetricsLog(self.setting.folder, loop.state.progress.epoch if resuming else -1)
        try:
            if first_row is not None:
                loop.consider(first_row, 0)
                log.add(first_row)
                self.setting.observer.epoch_done(first_row)
            if not self.config.freeze:
                with stop_on_signals() as stop:
                    loop.run(stop, log)
            elif not resuming:
                loop.save()
        finally:
            log.close()
        return self._finish(loop.state.progress)

    def _probe(self) -> Row:
        """Solve the classifier on frozen features, put it into the network, and describe it as epoch 0."""
        if not isinstance(self.network.fc, nn.Linear):
            raise UsageError(
                f"{self.network.architecture} has no linear classifier to solve: train all of it"
            )
        self.setting.observer.message("linear probe: computing the features of the training images once")
        views, targets = cached_features(self.network, self.setting, mirrored=self.config.flip == "yes")
        probe = fit_probe(views, targets, len(self.dataset.labels), self.config.seed)
        with torch.no_grad():
            self.network.fc.weight.copy_(probe.weight)
            self.network.fc.bias.copy_(probe.bias)
        chosen = next(score for score in probe.scores if score[0] == probe.penalty)
        return {
            "epoch": 0,
            "probe_penalty": probe.penalty,
            "probe_cross_validated_top1": chosen[1],
            "train_top1": float(
                ((views[0] @ probe.weight.T + probe.bias).argmax(1) == targets).float().mean()
            ),
        }

    def _keep(self, weights: dict[str, Tensor], progress: Progress) -> None:
        save_bundle(self._bundle(weights, progress), self.path)

    def _bundle(self, weights: dict[str, Tensor], progress: Progress) -> Bundle:
        config = self.config.to_dict()
        provenance = {
            "data": self.dataset.name,
            "data_fingerprint": self.dataset.fingerprint,
            "training_images": len(self.setting.train),
            "epoch": progress.best_epoch,
            "recipe": {key: value for key, value in config.items() if key not in ("output", "resume")},
            "seed": self.config.seed,
            "device": self.setting.device.type,
            "precision": self.setting.precision,
            "versions": {
                "inception": inception.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        return Bundle(
            network=self.network.architecture,
            arguments=self.network.arguments,
            labels=self.dataset.labels,
            preprocess=self.setting.preprocess,
            state_dict={name: value.detach().cpu() for name, value in weights.items()},
            provenance=provenance,
        )

    def _finish(self, progress: Progress) -> TrainResult:
        """Calibrate the best bundle on val and store what it measures there."""
        metrics: dict[str, Any] = {}
        if self.setting.val is not None:
            bundle = load_bundle(self.path)
            classifier = Classifier(bundle, str(self.setting.device), self.setting.precision)
            logits, targets = collect_logits(classifier, self.setting.val)
            temperature = fit_temperature(logits, targets)
            evaluation = evaluate_logits(logits, targets, bundle.labels, temperature=temperature)
            metrics = {key: evaluation.to_dict()[key] for key in ("n", "top1", "top5", "loss")}
            bundle = replace(
                bundle,
                temperature=temperature,
                unknown_threshold=unknown_threshold(logits, targets, temperature=temperature),
            )
            save_bundle(bundle.with_metrics(val=metrics), self.path)
        unreadable = dict(self.setting.train.unreadable)
        return TrainResult(self.setting.folder, self.path, metrics, progress.best_epoch, unreadable)


def _open_folder(config: TrainConfig) -> tuple[TrainConfig, Path]:
    if not config.data and not config.resume:
        raise UsageError("say what to train on: a folder, an archive, a CSV or a named set")
    name = config.output or f"runs/{Path(config.data).stem}-{config.model or 'googlenet_bn'}"
    folder = Path(name)
    checkpoint = folder / CHECKPOINT_FILE
    if config.resume and checkpoint.exists():
        saved = read_config_of(checkpoint)
        return replace(TrainConfig.from_dict(saved), output=str(folder), resume=True), folder
    if not config.resume and ((folder / METRICS_FILE).exists() or checkpoint.exists()):
        raise UsageError(
            f"{folder} holds a run already: continue it with --resume, or choose another --output"
        )
    if not config.data:
        raise UsageError(f"there is no run to resume in {folder}: say what to train on")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the run folder {folder}: {error.strerror or error}") from error
    return config, folder


def _typical_side(loader: Loader) -> int:
    """Median of the shorter sides of a few training images, in pixels."""
    positions = np.linspace(0, len(loader) - 1, min(SIDE_SAMPLES, len(loader))).astype(int)
    sides = []
    for position in positions:
        try:
            sides.append(min(loader.image(int(position)).size))
        except DataError:
            continue
    if not sides:
        raise DataError(f"none of {len(positions)} sampled images of {loader.dataset.name} can be read")
    return int(np.median(sides))


def _choose_preprocess(config: TrainConfig, start: Bundle | None, loader: Loader) -> Preprocess:
    if start is not None:
        size = config.image_size or start.preprocess.height
        return replace(start.preprocess, height=size, width=size)
    return Preprocess(height=config.image_size, width=config.image_size)


def _build(config: TrainConfig, start: Bundle | None, dataset: Dataset, preprocess: Preprocess) -> Network:
    classes = len(dataset.labels)
    if start is not None:
        if config.model and build_network(config.model).architecture != start.network:
            raise UsageError(
                f"--model {config.model} but {config.weights} holds a {start.network}: drop --model"
            )
        network = start.build()
        if start.labels != dataset.labels:
            network.reset_classifier(classes)
    else:
        stem = "small" if preprocess.height <= SMALL_IMAGE else "large"
        options: dict[str, Any] = {} if config.width == 1.0 else {"width": config.width}
        network = build_network(
            config.network, num_classes=classes, stem=stem, in_chans=preprocess.in_chans, **options
        )
    if config.dropout >= 0.0:
        network.dropout.p = config.dropout
    return network


@torch.inference_mode()
def cached_features(network: Network, setting: Setting, mirrored: bool) -> tuple[Tensor, Tensor]:
    """Features before the classifier for every readable training image, as evaluation sees it.

    Returns views float32 V x N x D (V = 2 with the mirror images, else 1) and targets int64 N.
    """
    network.eval()
    features: list[list[Tensor]] = [[], []]
    targets: list[Tensor] = []
    setting.observer.epoch_started(0, 0, -(-len(setting.train) // EVALUATION_BATCH))
    for batch in setting.train.evaluation_batches(setting.preprocess, EVALUATION_BATCH):
        images = setting.preprocess.normalize(batch.images.to(setting.device))
        images = images.contiguous(memory_format=torch.channels_last)
        for collected, view in zip(
            features, (images, images.flip(3)) if mirrored else (images,), strict=False
        ):
            with autocast(setting.device, setting.precision):
                maps = network.forward_features(view)
                collected.append(network.forward_head(maps, pre_logits=True).float().cpu())
        targets.append(batch.targets)
        setting.observer.batch_done(len(batch.targets), float("nan"))
    views = torch.stack([torch.cat(collected) for collected in features if collected])
    return views, torch.cat(targets)
