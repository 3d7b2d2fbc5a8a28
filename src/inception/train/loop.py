"""The training loop: one epoch after another, each step a pure function of what the checkpoint holds."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inception.data.augment import AUGMENTS, Augment
from inception.data.loader import Batch, Loader
from inception.data.preprocess import Preprocess
from inception.errors import TrainingError
from inception.nets.network import Network
from inception.nets.output import Output
from inception.runtime.device import Precision, autocast, place
from inception.train.checkpoint import (
    CHECKPOINT_FILE,
    Progress,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
)
from inception.train.config import TrainConfig
from inception.train.interrupt import Interrupted, StopRequest
from inception.train.log import MetricsLog, Observer, Row
from inception.train.losses import training_loss
from inception.train.optimizer import AveragedWeights, make_optimizer
from inception.train.schedule import rate_factor

CHECKPOINT_SECONDS = 60.0
EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Setting:
    """What a loop works with: where it computes, what it reads, where it writes, whom it tells."""

    folder: Path
    device: torch.device
    precision: Precision
    preprocess: Preprocess
    train: Loader
    val: Loader | None
    observer: Observer


class TrainingLoop:
    """Trains `network` under a resolved `config`.

    Args:
        fingerprint: of the data; a run is resumed only on the data it was started on.
        on_best: called with the averaged weights whenever they are the best so far.
    """

    def __init__(
        self,
        network: Network,
        config: TrainConfig,
        setting: Setting,
        fingerprint: str,
        on_best: Callable[[dict[str, Tensor], Progress], None],
    ) -> None:
        self.config, self.setting, self.on_best = config, setting, on_best
        self.fingerprint = fingerprint
        self.network = place(network, setting.device)
        freeze_below(self.network, config.unfreeze)
        optimizer = make_optimizer(self.network, config)
        average = AveragedWeights(self.network, config.ema_decay)
        self.state = TrainingState(self.network, optimizer, average, Progress())
        self.shadow = copy.deepcopy(self.network).eval()
        self.batches_per_epoch = math.ceil(len(setting.train) / config.batch_size)
        self.augment = chosen_augment(config)
        self.checkpoint_path = setting.folder / CHECKPOINT_FILE
        self._saved_at = time.monotonic()

    def resume(self) -> None:
        """Continue from the checkpoint in the run folder."""
        load_checkpoint(self.checkpoint_path, self.state, self.fingerprint)
        self.setting.train.unreadable.update(self.state.progress.unreadable)

    def run(self, stop: StopRequest, log: MetricsLog) -> None:
        """Train to the last epoch. Raises Interrupted (after saving) or TrainingError (loss not finite)."""
        progress = self.state.progress
        while progress.epoch < self.config.epochs:
            self.setting.observer.epoch_started(
                progress.epoch + 1,
                self.config.epochs,
                len(self.setting.train) - progress.batch * self.config.batch_size,
            )
            self._train_epoch(stop)
            row = self._finish_epoch()
            log.add(row)
            self.setting.observer.epoch_done(row)
            self.save()
            if stop.requested and progress.epoch < self.config.epochs:
                raise Interrupted(f"stopped after epoch {progress.epoch}; continue with --resume")

    def save(self) -> None:
        """Write the checkpoint."""
        self.state.progress.unreadable = dict(self.setting.train.unreadable)
        save_checkpoint(self.checkpoint_path, self.state, self.config.to_dict(), self.fingerprint)
        self._saved_at = time.monotonic()

    def _train_epoch(self, stop: StopRequest) -> None:
        progress, setting, config = self.state.progress, self.setting, self.config
        batches = setting.train.training_batches(
            setting.preprocess, self.augment, config.batch_size, config.seed, progress.epoch, progress.batch
        )
        started = time.monotonic()
        for batch in batches:
            self._set_training_mode(alone=len(batch.targets) == 1 < config.batch_size)
            loss = self._step(batch)
            progress.batch = batch.position + 1
            now = time.monotonic()
            progress.seconds, started = progress.seconds + now - started, now
            setting.observer.batch_done(len(batch.targets), loss)
            if stop.requested:
                self.save()
                raise Interrupted(
                    f"stopped in epoch {progress.epoch + 1} after {progress.batch} of "
                    f"{self.batches_per_epoch} batches; continue with --resume"
                )
            if now - self._saved_at > CHECKPOINT_SECONDS:
                self.save()

    def _set_training_mode(self, alone: bool) -> None:
        # A single image left over at the end of an epoch is no sample to take batch statistics from.
        keep_statistics = alone or self.config.batch_norm == "frozen"
        self.network.train()
        for stage in self.network.children():
            frozen = not any(parameter.requires_grad for parameter in stage.parameters())
            for layer in stage.modules():
                if isinstance(layer, nn.BatchNorm2d) and (frozen or keep_statistics):
                    layer.eval()

    def _step(self, batch: Batch) -> float:
        progress, config = self.state.progress, self.config
        for group in self.state.optimizer.param_groups:
            group["lr"] = self._learning_rate(progress.step)
        images = self.setting.preprocess.normalize(batch.images.to(self.setting.device, non_blocking=True))
        targets = batch.targets.to(self.setting.device, non_blocking=True)
        with autocast(self.setting.device, self.setting.precision):
            output: Output = self.network(images.contiguous(memory_format=torch.channels_last))
        loss = training_loss(output, targets, config.label_smoothing, config.aux_weight)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} in epoch {progress.epoch + 1}, step {progress.step + 1}; the last "
                "checkpoint is kept: try a lower --learning-rate"
            )
        self.state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.state.optimizer.step()
        self.state.average.update()
        progress.step += 1
        progress.loss_sum += value * len(targets)
        progress.correct += int((output.logits.argmax(1) == targets).sum())
        progress.seen += len(targets)
        return value

    def _learning_rate(self, step: int) -> float:
        config, batches = self.config, self.batches_per_epoch
        steps = config.epochs * batches
        return config.learning_rate * rate_factor(config.schedule, step, steps, batches, config.warmup)

    def _finish_epoch(self) -> Row:
        progress = self.state.progress
        row: Row = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / max(progress.seen, 1),
            "train_top1": progress.correct / max(progress.seen, 1),
            "learning_rate": self._learning_rate(progress.step - 1),
            "images_per_s": progress.seen / max(progress.seconds, 1e-9),
            "seconds": progress.seconds,
        }
        self.consider(row, progress.epoch + 1)
        progress.epoch += 1
        progress.batch, progress.seen, progress.correct = 0, 0, 0
        progress.loss_sum, progress.seconds = 0.0, 0.0
        return row

    def consider(self, row: Row, epoch: int) -> None:
        """Measure the averaged weights on val, add the result to `row`, and keep them unless they are worse.

        Worse means by more than one standard error of the best accuracy: on a small val split single images
        decide which epoch is best, and the later epoch, at a lower learning rate, is the safer choice.
        """
        progress = self.state.progress
        weights = self.state.average.state_dict(self.network)
        if self.setting.val is not None:
            self.shadow.load_state_dict(weights)
            loss, top1 = validate(self.shadow, self.setting, self.setting.val)
            row |= {"val_loss": loss, "val_top1": top1}
            best = max(progress.best_top1, 0.0)
            error = math.sqrt(best * (1.0 - best) / max(len(self.setting.val), 1))
            progress.best_top1 = max(best, top1)
            if top1 < best - error:
                return
        progress.best_epoch = epoch
        self.on_best(weights, progress)


def chosen_augment(config: TrainConfig) -> Augment:
    """The augmentation a resolved config asks for."""
    base = AUGMENTS[config.augment]  # type: ignore[index]
    return Augment(**{**vars(base), "flip": config.flip == "yes"})


def freeze_below(network: Network, first_trained: str) -> None:
    """Stop gradients in the stages before `first_trained` (an endpoint name; '' trains everything)."""
    if not first_trained:
        return
    from inception.nets.endpoints import resolve_endpoint

    stage = resolve_endpoint(first_trained, network.endpoints, network.aliases)
    for name in network.endpoints[: network.endpoints.index(stage)]:
        getattr(network, name).requires_grad_(False)


@torch.inference_mode()
def validate(network: Network, setting: Setting, loader: Loader) -> tuple[float, float]:
    """Mean cross-entropy (nats) and top-1 (fraction) of a network in evaluation mode."""
    loss_sum, correct, seen = 0.0, 0, 0
    for batch in loader.evaluation_batches(setting.preprocess, EVALUATION_BATCH):
        images = setting.preprocess.normalize(batch.images.to(setting.device))
        with autocast(setting.device, setting.precision):
            logits = network(images.contiguous(memory_format=torch.channels_last)).float().cpu()
        loss_sum += float(F.cross_entropy(logits, batch.targets, reduction="sum"))
        correct += int((logits.argmax(1) == batch.targets).sum())
        seen += len(batch.targets)
    return loss_sum / max(seen, 1), correct / max(seen, 1)
