"""A training run from start to end: prepared, probed, looped, calibrated."""

import json
import platform
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import inception
from inception.data.loader import Loader
from inception.evaluate.calibration import fit_temperature, unknown_threshold
from inception.evaluate.measure import collect_logits
from inception.evaluate.measure_labels import collect_labels
from inception.evaluate.metrics import evaluate_logits
from inception.evaluate.multilabel import USUAL_THRESHOLD, evaluate_labels, fit_thresholds
from inception.files import atomic_write_text, held, remove_leftovers
from inception.runtime.classifier import Classifier
from inception.runtime.device import choose_device
from inception.train.checkpoint import CHECKPOINT_FOLDER, clean_checkpoints, list_checkpoints
from inception.train.choose import CHOICE_FILE, choose
from inception.train.config import TrainConfig
from inception.train.interrupt import stop_on_signals
from inception.train.log import MetricsLog, Observer, Row, Silent
from inception.train.loop import TrainingLoop
from inception.train.native.memory import kept_memory
from inception.train.prepare import Prepared, prepare
from inception.train.probe import cached_features, fit_probe, rightness
from inception.train.range_test import find_learning_rate, write_range_test
from inception.train.ranks import joined, was_restarted
from inception.train.recipes import label_of
from inception.train.state import Progress
from inception.train.trainee import Setting
from inception.weights.bundle import Bundle, load_bundle, save_bundle

BUNDLE_FOLDER = "bundle"


@dataclass(frozen=True)
class TrainResult:
    """What a run left.

    Attributes:
        folder: the run folder.
        bundle: path of the bundle in it.
        metrics: of the bundle on the val split (empty without one, and in all processes but the first):
            top1, top5, loss, n; with several labels an image n, map, macro_f1, micro_f1, loss.
        best_epoch: the epoch the bundle's weights are from; 0 is the linear probe.
        unreadable: skipped images of train and val, and why.
        left_out: reasons why images of the data set were not used, and how many.
    """

    folder: Path
    bundle: Path
    metrics: dict[str, Any]
    best_epoch: int
    unreadable: dict[str, str]
    left_out: dict[str, int] = field(default_factory=dict)


def train_bundle(
    config: TrainConfig, observer: Observer | None = None, said: Collection[str] | None = None
) -> TrainResult:
    """Train a classifier and leave its bundle, metrics.jsonl and curves in the run folder.

    Under `torchrun` every process calls it with the same `config`; the first one writes and speaks. A run
    that torchrun has restarted continues from its last checkpoint.

    A resumed run takes from `config` what `said` names (None: what is not the default), and the rest from its
    checkpoint.

    Raises UsageError or DataError for what cannot be trained on, TrainingError when the loss is not finite,
    WriteError when the run folder cannot be written, Interrupted when it was asked to stop (everything is
    saved).
    """
    if was_restarted():
        config = replace(config, resume=True)
        said = None if said is None else (*said, "resume")
    with joined(choose_device(config.device).type) as ranks:
        if ranks.first:
            prepared = prepare(config, observer or Silent(), ranks, said)
            ranks.wait()
        else:
            ranks.wait()  # the first process downloads, checks and makes the folder
            prepared = prepare(config, Silent(), ranks, said)
        ranks.wait()
        with _owned(prepared.setting), kept_memory():
            return _Run(prepared).go()


@contextmanager
def _owned(setting: Setting) -> Iterator[None]:
    """Keep other processes out of the run folder, and begin with what is whole in it."""
    if not setting.ranks.first:
        yield
        return
    with held(setting.folder, "another process is training in"):
        clean_checkpoints(setting.folder / CHECKPOINT_FOLDER)
        remove_leftovers(setting.folder / BUNDLE_FOLDER)
        yield


class _Run:
    def __init__(self, prepared: Prepared) -> None:
        self.config, self.dataset, self.setting = prepared.config, prepared.dataset, prepared.setting
        self.network, self.fresh_head = prepared.network, prepared.fresh_head
        self.candidates = prepared.candidates
        self.path = self.setting.folder / BUNDLE_FOLDER

    def go(self) -> TrainResult:
        setting = self.setting
        resuming = self.config.resume and bool(list_checkpoints(setting.folder / CHECKPOINT_FOLDER))
        first_row: Row | None = None
        if (self.fresh_head or self.config.freeze) and not resuming:
            first_row = self._probe()
        if not resuming and not self.config.freeze:
            self._choose()
        loop = TrainingLoop(self.network, self.config, setting, self.dataset.fingerprint, self._keep)
        if resuming:
            loop.resume()
        keep = loop.state.progress.epoch if resuming else -1
        # One process must not write or remove what another is still reading.
        setting.ranks.wait()
        log = MetricsLog(setting.folder, keep, writes=setting.ranks.first)
        try:
            if first_row is not None:
                loop.consider(first_row, 0)
                log.add(first_row)
                setting.observer.epoch_done(first_row)
            if not self.config.freeze:
                with stop_on_signals() as stop:
                    loop.run(stop, log)
            elif not resuming:
                loop.save()
        finally:
            log.close()
        return self._finish(loop.state.progress)

    def _choose(self) -> None:
        """Settle what the options leave to be tried: the learning rate, and which stages are trained."""
        folder, first = self.setting.folder, self.setting.ranks.first
        if self.config.find_learning_rate:
            found = find_learning_rate(self.network, self.config, self.setting)
            self.config = replace(self.config, learning_rate=found.suggestion)
            self.candidates = tuple(
                replace(candidate, learning_rate=found.suggestion) for candidate in self.candidates
            )
            self.setting.observer.message(f"learning rate {found.suggestion:g}, by the range test")
            if first:
                write_range_test(found, folder)
        if not self.candidates:
            return
        choice = choose(self.network, self.config, self.setting, self.candidates)
        chosen = choice.chosen
        self.config = replace(self.config, unfreeze=chosen.unfreeze, learning_rate=chosen.learning_rate)
        if first:
            atomic_write_text(folder / CHOICE_FILE, json.dumps(choice.to_dict(), indent=1) + "\n")

    def _choice(self) -> dict[str, Any]:
        """What `_choose` left in the run folder, for the bundle."""
        try:
            content = json.loads((self.setting.folder / CHOICE_FILE).read_text())
        except (OSError, ValueError):
            return {}
        return {"choice": content}

    def _probe(self) -> Row:
        """Solve the classifier on frozen features, put it into the network, and describe it as epoch 0."""
        self.setting.observer.message("linear probe: computing the features of the training images once")
        # Every process computes them all: the solution is then the same in each.
        whole = replace(self.setting, train=self.setting.train.alone())
        views, targets = cached_features(self.network, whole, mirrored=self.config.flip == "yes")
        probe = fit_probe(views, targets, len(self.dataset.labels), self.config.seed)
        with torch.no_grad():
            self.network.fc.weight.copy_(probe.weight)  # type: ignore[operator]
            self.network.fc.bias.copy_(probe.bias)  # type: ignore[operator]
        chosen = next(score for score in probe.scores if score[0] == probe.penalty)
        several = self.setting.multilabel
        right = rightness(views[0] @ probe.weight.T + probe.bias, targets)
        return {
            "epoch": 0,
            "probe_penalty": probe.penalty,
            f"probe_cross_validated_{'right' if several else 'top1'}": chosen[1],
            "train_exact" if several else "train_top1": float((right == 1.0).float().mean()),
        }

    def _keep(self, weights: dict[str, Tensor], progress: Progress) -> None:
        if self.setting.ranks.first:
            save_bundle(self._bundle(weights, progress), self.path)

    def _bundle(self, weights: dict[str, Tensor], progress: Progress) -> Bundle:
        config = self.config.to_dict()
        provenance = {
            "data": self.dataset.name,
            "data_fingerprint": self.dataset.fingerprint,
            "training_images": len(self.setting.train),
            "epoch": progress.best_epoch,
            "recipe": {key: value for key, value in config.items() if key not in ("output", "resume")},
            "recipe_version": label_of(self.config.recipe),
            **self._choice(),
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
            thresholds=(USUAL_THRESHOLD,) * len(self.dataset.labels) if self.setting.multilabel else None,
        )

    def _finish(self, progress: Progress) -> TrainResult:
        """Calibrate the best bundle on val and store what it measures there."""
        metrics: dict[str, Any] = {}
        if self.setting.val is not None and self.setting.ranks.first:
            bundle = load_bundle(self.path)
            classifier = Classifier(bundle, str(self.setting.device), self.setting.precision)
            settle = _with_thresholds if self.setting.multilabel else _calibrated
            bundle, metrics = settle(bundle, classifier, self.setting.val.alone())
            save_bundle(bundle.with_metrics(val=metrics), self.path)
        unreadable = dict(self.setting.train.unreadable)
        if self.setting.val is not None:
            unreadable |= self.setting.val.unreadable
        self.setting.ranks.wait()
        left_out = {reason: len(paths) for reason, paths in self.dataset.left_out.items()}
        return TrainResult(self.setting.folder, self.path, metrics, progress.best_epoch, unreadable, left_out)


def _calibrated(bundle: Bundle, classifier: Classifier, val: Loader) -> tuple[Bundle, dict[str, Any]]:
    """With temperature and threshold for `unknown`, and what it measures."""
    logits, targets = collect_logits(classifier, val)
    temperature = fit_temperature(logits, targets)
    evaluation = evaluate_logits(logits, targets, bundle.labels, temperature=temperature)
    metrics = {key: evaluation.to_dict()[key] for key in ("n", "top1", "top5", "loss")}
    threshold = unknown_threshold(logits, targets, temperature=temperature)
    return replace(bundle, temperature=temperature, unknown_threshold=threshold), metrics


def _with_thresholds(bundle: Bundle, classifier: Classifier, val: Loader) -> tuple[Bundle, dict[str, Any]]:
    """With each label's threshold, and what it measures with them: nothing where no image has a label."""
    logits, truth = collect_labels(classifier, val)
    if not truth.any():
        return bundle, {}
    thresholds = fit_thresholds(logits, truth)
    evaluation = evaluate_labels(logits, truth, bundle.labels, thresholds)
    metrics = {
        "n": evaluation.n,
        "map": evaluation.map,
        "macro_f1": evaluation.macro.f1,
        "micro_f1": evaluation.micro.f1,
        "loss": evaluation.loss,
    }
    return replace(bundle, thresholds=thresholds), metrics
