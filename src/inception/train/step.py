"""One step: images and targets in, gradients of all parts and processes added up, weights moved."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from inception.data.loader import Batch
from inception.data.preprocess import Preprocess
from inception.errors import TrainingError, UsageError, first_line
from inception.nets.network import Network
from inception.nets.output import Output
from inception.runtime.device import Precision, autocast
from inception.train.config import TrainConfig
from inception.train.distributed import take_first_statistics, without_exchange
from inception.train.layers import set_training_mode
from inception.train.losses import balanced_weights, training_loss
from inception.train.mix import mix_batch, mix_generator
from inception.train.state import TrainingState

SKIPPED_IN_A_ROW = 50
"""So many steps without a finite loss are no accident: even `skip_nonfinite` stops then."""


@dataclass(frozen=True)
class Tally:
    """What a step saw, over all processes.

    Attributes:
        loss: mean over the images; not finite when the step was skipped.
        correct, seen: images.
        flag: sum of the flags that the processes gave to the step.
    """

    loss: float
    correct: int
    seen: int
    flag: int = 0


def even_parts(count: int, parts: int) -> list[slice]:
    """0..count-1 in `parts` (at most `count`) pieces whose lengths differ by at most one."""
    edges = [position * count // parts for position in range(parts + 1)]
    return [slice(first, last) for first, last in pairwise(edges)]


def compiled(model: nn.Module) -> nn.Module:
    """`model` through torch.compile. Raises UsageError where nothing can be compiled (no C++ compiler)."""
    try:
        torch.compile(torch.sin)(torch.ones(8))
    except Exception as error:
        raise UsageError(
            f"this machine cannot compile ({first_line(error)}): install a C++ compiler, or --compile no"
        ) from error
    return torch.compile(model, dynamic=False)  # type: ignore[return-value]


class Step:
    """Makes the steps of one run.

    Args:
        model: the network, or the wrapper that averages its gradients over several processes.
        labels: of the training images, for balanced class weights.
        multilabel: whether an image may have several labels; targets are then float32 N x num_classes.
    """

    def __init__(
        self,
        model: nn.Module,
        network: Network,
        config: TrainConfig,
        state: TrainingState,
        preprocess: Preprocess,
        precision: Precision,
        labels: list[int],
        multilabel: bool = False,
    ) -> None:
        self.model, self.network = model, network
        self.forward = compiled(model) if config.compile == "yes" else model
        self.config, self.state = config, state
        self.preprocess, self.precision = preprocess, precision
        self.multilabel = multilabel
        self.class_weights: Tensor | None = None
        if config.class_balance == "weights":
            self.class_weights = balanced_weights(labels, network.num_classes).to(state.device)
        self._skipped_in_a_row = 0
        self._norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        # What weights bring is worth more than the first batches; a fresh network has nothing to go by.
        self._fresh = [] if config.weights else [norm for norm in self._norms if norm.momentum]

    def __call__(self, batch: Batch, rate: float, flag: int = 0) -> Tally:
        """Train on this process's share of a batch, at the learning rate `rate`.

        Raises TrainingError when a loss or, with `skip_nonfinite`, too many losses are not finite.
        """
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_scale", 1.0)
        unsettled = self._unsettled()
        statistics = self._statistics() if self.config.skip_nonfinite or unsettled else {}
        device = self.state.device
        batch = batch._replace(images=batch.images.to(device), targets=batch.targets.to(device))
        images, targets = self._inputs(batch)
        self.state.optimizer.zero_grad(set_to_none=True)
        tally = self._backward(images, targets, batch.targets, flag)
        self.state.progress.step += 1
        if not math.isfinite(tally.loss) or (self.config.skip_nonfinite and not self._finite_gradients()):
            self._refuse(tally.loss)
            for buffer, value in statistics.items():
                buffer.copy_(value)
            return Tally(math.nan, 0, 0, tally.flag)
        self._skipped_in_a_row = 0
        if self.config.clip_gradient > 0.0:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_gradient)
        self.state.optimizer.step()
        self._settle(unsettled, statistics)
        if self.state.ranks.count > 1 and self.config.batch_norm_across == "each":
            take_first_statistics(self.network)
        self.state.average.update()
        return tally

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        config, progress = self.config, self.state.progress
        images, targets = self.preprocess.normalize(batch.images), batch.targets
        if config.mixup or config.cutmix:
            rng = mix_generator(config.seed, progress.epoch, batch.position, self.state.ranks.rank)
            images, targets = mix_batch(
                images, targets, self.network.num_classes, config.mixup, config.cutmix, rng
            )
        return images.contiguous(memory_format=torch.channels_last), targets

    def _backward(self, images: Tensor, targets: Tensor, classes: Tensor, flag: int) -> Tally:
        """Gradients of the mean loss over all parts and processes."""
        config, ranks = self.config, self.state.ranks
        counts = [int(count) for count in ranks.gather(torch.tensor(len(images)))]
        seen = sum(counts)
        # Every process computes as many parts: in each of them the processes exchange statistics.
        parts = even_parts(len(images), min(config.accumulation, *counts))
        set_training_mode(self.network, self._keeps_statistics(counts, len(parts)))
        loss_sum, correct = 0.0, 0
        for part in parts:
            with without_exchange(self.model, part is not parts[-1]):
                with autocast(self.state.device, self.precision):
                    output = self._forward(images[part])
                loss = training_loss(
                    output,
                    targets[part],
                    config.label_smoothing,
                    config.aux_weight,
                    self.class_weights,
                    self.multilabel,
                )
                share = len(targets[part]) * ranks.count / seen
                (loss * share if share != 1.0 else loss).backward()  # type: ignore[no-untyped-call]
            loss_sum += float(loss.detach()) * len(targets[part])
            correct += self._count_right(output.logits, classes[part])
        sums: list[Any] = [loss_sum, correct, flag]
        if ranks.count > 1:
            sums = ranks.add_up(torch.tensor(sums, dtype=torch.float64)).tolist()
        return Tally(sums[0] / seen, int(sums[1]) if math.isfinite(sums[1]) else 0, seen, int(sums[2]))

    def _forward(self, images: Tensor) -> Output:
        try:
            output: Output = self.forward(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UsageError(
                f"{self.network.architecture} would normalise single numbers, with one image in a part of a "
                "batch: raise --batch-size or lower --accumulation"
            ) from error
        return output

    def _count_right(self, logits: Tensor, classes: Tensor) -> int:
        """Images answered rightly; with several labels, those of which every label is right."""
        if self.multilabel:
            return int(((logits > 0.0) == (classes > 0.5)).all(1).sum())
        return int((logits.argmax(1) == classes).sum())

    def _keeps_statistics(self, counts: list[int], parts: int) -> bool:
        """Whether batch norms keep their statistics: frozen, or a single image is left over for them."""
        config, processes = self.config, len(counts)
        apart = config.batch_norm_across == "each"
        smallest = (min(counts) if apart else sum(counts)) // parts
        usual = config.batch_size // config.accumulation // (processes if apart else 1)
        return config.batch_norm == "frozen" or smallest <= 1 < usual

    def _unsettled(self) -> list[tuple[nn.BatchNorm2d, float]]:
        """Fresh batch norms whose momentum gives the coming step less than its share, and how much less.

        A running mean that begins at 0 and 1 would need some 30 steps (at momentum 0.1; thousands at
        TensorFlow's) before val says what was learnt.
        """
        progress, parts = self.state.progress, self.config.accumulation
        share = 1.0 / (progress.step - progress.skipped + 1)
        moved = [(norm, 1.0 - (1.0 - (norm.momentum or 0.0)) ** parts) for norm in self._fresh]
        return [(norm, share / by) for norm, by in moved if by < share]

    def _settle(self, unsettled: list[tuple[nn.BatchNorm2d, float]], before: dict[Tensor, Tensor]) -> None:
        """Statistics become the mean of all batches so far: they have moved, and move on by the factor.

        Not by another momentum, for each value of which torch.compile would compile the network anew.
        """
        for norm, factor in unsettled:
            for buffer in (norm.running_mean, norm.running_var):
                if buffer is not None:
                    buffer.copy_(torch.lerp(before[buffer], buffer, factor))

    def _statistics(self) -> dict[Tensor, Tensor]:
        """Batch-norm statistics before the step: a batch that is left out must not stay in them."""
        return {buffer: buffer.clone() for norm in self._norms for buffer in norm.buffers()}

    def _finite_gradients(self) -> bool:
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norms = torch._foreach_norm(gradients)
        return bool(torch.isfinite(torch.stack(norms)).all())

    def _refuse(self, loss: float) -> None:
        progress = self.state.progress
        progress.skipped += 1
        self._skipped_in_a_row += 1
        where = f"in epoch {progress.epoch + 1}, step {progress.step}"
        if not self.config.skip_nonfinite:
            raise TrainingError(
                f"the loss became {loss} {where}; the last checkpoint is kept: try a lower --learning-rate, "
                "or --skip-nonfinite if single images are to blame"
            )
        if self._skipped_in_a_row >= SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"{SKIPPED_IN_A_ROW} steps in a row were not finite, the last {where}; the last checkpoint "
                "is kept: try a lower --learning-rate"
            )
