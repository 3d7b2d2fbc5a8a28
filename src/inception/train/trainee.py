"""A network with all that moves its weights: the loop trains one, pilots and range tests try copies."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from inception.data.augment import AUGMENTS, Augment
from inception.data.loader import Loader
from inception.data.preprocess import Preprocess
from inception.errors import DataError
from inception.evaluate.multilabel import mean_average_precision
from inception.nets.network import Network
from inception.nets.output import Output
from inception.runtime.device import Precision, autocast, place
from inception.train.config import TrainConfig
from inception.train.distributed import averaged_gradients
from inception.train.interrupt import StopRequest
from inception.train.layers import freeze_below, scale_rates
from inception.train.log import Observer
from inception.train.losses import training_loss
from inception.train.native.fused import fuse
from inception.train.optimizer import AveragedWeights, make_optimizer
from inception.train.ranks import ALONE, Ranks
from inception.train.state import Progress, TrainingState
from inception.train.step import Step

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
    ranks: Ranks = ALONE

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.train.dataset.multilabel


@dataclass(frozen=True)
class Trainee:
    """A network ready for its first step.

    Attributes:
        state: network, optimiser, averaged weights and progress.
        step: makes a step of it.
        shadow: a copy in evaluation mode, for the averaged weights.
    """

    state: TrainingState
    step: Step
    shadow: Network

    def averaged(self) -> Network:
        """`shadow` with the averaged weights of now."""
        self.shadow.load_state_dict(self.state.average.state_dict(self.state.network))
        return self.shadow


def make_trainee(network: Network, config: TrainConfig, setting: Setting) -> Trainee:
    """Optimiser, averages and step for `network` under a resolved `config`; it is trained in place."""
    network = place(network, setting.device)
    network.set_grad_checkpointing(config.checkpoint_gradients)
    freeze_below(network, config.unfreeze)
    shadow = copy.deepcopy(network).eval()
    model = averaged_gradients(network, config.batch_norm_across, setting.device, setting.ranks)
    if config.kernels == "yes":
        fuse(network)
    optimizer = make_optimizer(network, config)
    scale_rates(optimizer, network, config.layer_decay)
    average = AveragedWeights(network, config.ema_decay)
    state = TrainingState(network, optimizer, average, Progress(), setting.device, setting.ranks)
    labels = [] if setting.multilabel else [sample.label for sample in setting.train.samples]
    step = Step(
        model, network, config, state, setting.preprocess, setting.precision, labels, setting.multilabel
    )
    return Trainee(state, step, shadow)


def chosen_augment(config: TrainConfig) -> Augment:
    """The augmentation a resolved config asks for."""
    base = AUGMENTS[config.augment]  # type: ignore[index]
    return Augment(**{**vars(base), "flip": config.flip == "yes"})


@torch.inference_mode()
def validate(
    network: Network, setting: Setting, loader: Loader, stop: StopRequest | None = None
) -> tuple[float, float] | None:
    """Mean loss (nats) and score (fraction) of a network in evaluation mode.

    The loss is the cross-entropy and the score top-1; with several labels an image, the binary cross-entropy
    and the mean average precision. Several processes measure every image once between them. None when asked
    to stop (alone only). Raises DataError when no image can be read.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    for batch in loader.evaluation_batches(setting.preprocess, EVALUATION_BATCH):
        if stop is not None and stop.requested and setting.ranks.count == 1:
            return None
        images = setting.preprocess.normalize(batch.images.to(setting.device))
        with autocast(setting.device, setting.precision):
            logits = network(images.contiguous(memory_format=torch.channels_last)).float().cpu()
        if setting.multilabel:
            kept.append((logits, batch.targets))
            loss = float(training_loss(Output(logits), batch.targets, 0.0, 0.0, None, True)) * len(logits)
            correct = 0
        else:
            loss = float(F.cross_entropy(logits, batch.targets, reduction="sum"))
            correct = int((logits.argmax(1) == batch.targets).sum())
        sums += torch.tensor([loss, correct, len(batch.targets)], dtype=torch.float64)
    loss_sum, right, seen = setting.ranks.add_up(sums).tolist()
    if not seen:
        raise DataError(f"none of the {len(loader)} images of val can be read: run `inception check`")
    if kept:
        answers, targets = (torch.cat(parts).numpy() for parts in zip(*kept, strict=True))
        return loss_sum / seen, mean_average_precision(answers, targets > np.float32(0.5))
    return loss_sum / seen, right / seen


def score_error(score: float, images: int) -> float:
    """Standard error of a share (0..1) of so many images, two right ones and two wrong ones added.

    So even where all of twenty are right, one image is no difference (Agresti and Coull 1998,
    "Approximate is better than 'exact' for interval estimation of binomial proportions").
    """
    count = images + 4.0
    share = (score * images + 2.0) / count
    return math.sqrt(share * (1.0 - share) / count)
