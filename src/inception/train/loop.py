"""The training loop: one epoch after another, each step a pure function of what the checkpoint holds."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from inception.errors import DataError, TrainingError
from inception.nets.network import Network
from inception.train.checkpoint import CHECKPOINT_FOLDER, load_checkpoint, save_checkpoint
from inception.train.config import TrainConfig
from inception.train.feed import feed
from inception.train.interrupt import Interrupted, StopRequest
from inception.train.log import MetricsLog, Row
from inception.train.recipes import label_of
from inception.train.schedule import rate_factor
from inception.train.state import Progress, require_finite
from inception.train.trainee import Setting, chosen_augment, make_trainee, score_error, validate

_STOP, _SAVE = 1, 1 << 20
"""What a process wishes after a step; wishes are added up, so all processes do the same."""


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
        trainee = make_trainee(network, config, setting)
        self.network, self.shadow = network, trainee.shadow
        self.state, self.step = trainee.state, trainee.step
        self.batches_per_epoch = setting.train.batch_count(config.batch_size)
        self.augment = chosen_augment(config)
        self.checkpoints = setting.folder / CHECKPOINT_FOLDER
        self._saved_at = time.monotonic()
        self._saved: tuple[int, int] | None = None

    def resume(self) -> None:
        """Continue from the newest intact checkpoint in the run folder. Raises TrainingError."""
        load_checkpoint(self.checkpoints, self.state, self.fingerprint, self.setting.observer.message)
        progress = self.state.progress
        if progress.epoch > self.config.epochs or progress.batch > self.batches_per_epoch:
            raise TrainingError(
                f"{self.checkpoints} is of another run than its options say: remove it to start anew"
            )
        self._saved = (progress.epoch, progress.batch)
        self.setting.train.unreadable.update(progress.unreadable)

    def run(self, stop: StopRequest, log: MetricsLog) -> None:
        """Train to the last epoch, or until `patience` ends. Raises Interrupted (after saving) or
        TrainingError (loss or weights not finite, another process lost).
        """
        progress = self.state.progress
        while progress.epoch < self.config.epochs and not self._has_settled():
            done = progress.batch * self.config.batch_size
            self.setting.observer.epoch_started(
                progress.epoch + 1, self.config.epochs, max(len(self.setting.train) - done, 0)
            )
            self._train_epoch(stop)
            row = self._finish_epoch(stop)
            log.add(row)
            self.setting.observer.epoch_done(row)
            self.save()
            stopping = int(self.setting.ranks.add_up(torch.tensor(int(stop.requested)))) > 0
            if stopping and progress.epoch < self.config.epochs:
                raise Interrupted(f"stopped after epoch {progress.epoch}; continue with --resume")

    def save(self) -> None:
        """Write the checkpoint, unless this very state is written. Raises TrainingError or WriteError."""
        progress = self.state.progress
        position = (progress.epoch, progress.batch)
        if position == self._saved:
            return
        self._require_finite()
        progress.unreadable = dict(self.setting.train.unreadable)
        config = self.config.to_dict()
        save_checkpoint(self.checkpoints, self.state, config, self.fingerprint, self.config.keep_checkpoints)
        self._saved, self._saved_at = position, time.monotonic()

    def _has_settled(self) -> bool:
        patience = self.config.patience
        settled = 0 < patience <= self.state.progress.stale
        if settled:
            self.setting.observer.message(
                f"stopped early: no better validation accuracy in {patience} epochs"
            )
        return settled

    def _require_finite(self) -> None:
        try:
            require_finite(self.state)
        except ValueError as error:
            raise TrainingError(
                f"the weights {error} are no longer finite in epoch {self.state.progress.epoch + 1}; "
                "the last checkpoint is kept: try a lower --learning-rate"
            ) from error

    def _train_epoch(self, stop: StopRequest) -> None:
        progress, setting, config = self.state.progress, self.setting, self.config
        batches = setting.train.training_batches(
            setting.preprocess, self.augment, config.batch_size, config.seed, progress.epoch, progress.batch
        )
        started = time.monotonic()
        for batch in feed(batches, setting.device):
            self._require_share(batch.position)
            tally = self.step(batch, self._learning_rate(progress.step), self._wish(stop))
            progress.loss_sum += tally.loss * tally.seen if tally.seen else 0.0
            progress.correct += tally.correct
            progress.seen += tally.seen
            progress.batch = batch.position + 1
            now = time.monotonic()
            progress.seconds, started = progress.seconds + now - started, now
            setting.observer.batch_done(tally.seen or len(batch.targets), tally.loss)
            wish = self._wish(stop) if setting.ranks.count == 1 else tally.flag
            if wish % _SAVE:
                self.save()
                raise Interrupted(
                    f"stopped in epoch {progress.epoch + 1} after {progress.batch} of "
                    f"{self.batches_per_epoch} batches; continue with --resume"
                )
            if wish:
                self.save()
        if setting.ranks.count > 1:
            self._require_share(self.batches_per_epoch)

    def _wish(self, stop: StopRequest) -> int:
        """After the coming step (or, alone, the last one): stop, save, both or neither."""
        config, alone = self.config, self.setting.ranks.count == 1
        steps = self.state.progress.step + (not alone)
        due = time.monotonic() - self._saved_at > config.checkpoint_seconds
        due = due or (config.checkpoint_steps > 0 and steps % config.checkpoint_steps == 0)
        return _STOP * stop.requested + _SAVE * (due and self.setting.ranks.first)

    def _require_share(self, position: int) -> None:
        """Several processes take every step together: none may be without images."""
        if self.setting.ranks.count > 1 and position != self.state.progress.batch:
            raise DataError(
                f"process {self.setting.ranks.rank} cannot read any of its images of batch "
                f"{self.state.progress.batch + 1}: run `inception check`"
            )

    def _learning_rate(self, step: int) -> float:
        config, batches = self.config, self.batches_per_epoch
        steps = config.epochs * batches
        return config.learning_rate * rate_factor(config.schedule, step, steps, batches, config.warmup)

    def _finish_epoch(self, stop: StopRequest) -> Row:
        self._require_finite()
        progress = self.state.progress
        if not progress.seen and progress.skipped:
            raise TrainingError(
                f"no step of epoch {progress.epoch + 1} had a finite loss; the last checkpoint is kept: "
                "try a lower --learning-rate"
            )
        right = "train_exact" if self.setting.multilabel else "train_top1"
        row: Row = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / max(progress.seen, 1),
            right: progress.correct / max(progress.seen, 1),
            "learning_rate": self._learning_rate(progress.step - 1),
            "images_per_s": progress.seen / max(progress.seconds, 1e-9),
            "seconds": progress.seconds,
        }
        if self.config.skip_nonfinite:
            row["skipped"] = progress.skipped
        row["recipe"] = label_of(self.config.recipe)
        self.consider(row, progress.epoch + 1, stop)
        progress.epoch += 1
        progress.batch, progress.seen, progress.correct = 0, 0, 0
        progress.loss_sum, progress.seconds = 0.0, 0.0
        return row

    def consider(self, row: Row, epoch: int, stop: StopRequest | None = None) -> None:
        """Measure the averaged weights on val, add the result to `row`, and keep them unless they are worse.

        Worse means by more than one standard error of the best score: on a small val split single images
        decide which epoch is best, and the later epoch, at a lower learning rate, is the safer choice. The
        linear probe (epoch 0) competes by the same rule.
        """
        progress = self.state.progress
        weights = self.state.average.state_dict(self.network)
        if self.setting.val is not None:
            self.shadow.load_state_dict(weights)
            measured = validate(self.shadow, self.setting, self.setting.val, stop)
            if measured is None:
                self.save()
                raise Interrupted(f"stopped while measuring epoch {epoch}; continue with --resume")
            loss, score = measured
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss on val became {loss} in epoch {epoch}; the bundle of the best epoch before, "
                    "if there was one, is kept: try a lower --learning-rate"
                )
            row |= {"val_loss": loss, "val_map" if self.setting.multilabel else "val_top1": score}
            progress.stale = 0 if score > progress.best_score else progress.stale + 1
            best = max(progress.best_score, 0.0)
            progress.best_score = max(best, score)
            if score < best - score_error(best, len(self.setting.val)):
                return
        progress.best_epoch = epoch
        self.on_best(weights, progress)
