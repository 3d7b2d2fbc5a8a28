"""Small training runs, in memory, for experiments that compare networks rather than make one."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inception.data.dataset import Dataset, Sample
from inception.data.loader import Loader
from inception.data.preprocess import Preprocess
from inception.data.sources import open_dataset
from inception.errors import DataError, TrainingError
from inception.nets.network import Network
from inception.runtime.device import autocast, choose_device, choose_precision, place
from inception.study.experiment import Options
from inception.train.config import TrainConfig
from inception.train.losses import training_loss
from inception.train.optimizer import make_optimizer
from inception.train.schedule import rate_factor

SIDE = 32
WARM_UP = 0.15
_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Images:
    """A small data set in memory.

    Attributes:
        name: of the set.
        classes: number of them.
        train, test: uint8 N x 3 x 32 x 32.
        train_targets, test_targets: int64 N.
        flip: whether a mirrored image keeps its class.
    """

    name: str
    classes: int
    train: Tensor
    train_targets: Tensor
    test: Tensor
    test_targets: Tensor
    flip: bool


def load_images(options: Options) -> Images:
    """`options.images` training images of `options.data` and at most as many test images, fixed by a seed.

    Raises DataError when the set cannot be read or has no test (or val) images.
    """
    dataset = open_dataset(options.data)
    split = dataset.evaluation_split()
    if split == "all" or not dataset.split("train"):
        raise DataError(
            f"{options.data} has no training and test images apart: give it train and test folders"
        )
    train, train_targets = _decoded(dataset, dataset.split("train"), options.images)
    test, test_targets = _decoded(dataset, dataset.split(split), options.images)
    return Images(
        dataset.name, len(dataset.labels), train, train_targets, test, test_targets, dataset.flip_safe
    )


def _decoded(dataset: Dataset, samples: Sequence[Sample], count: int) -> tuple[Tensor, Tensor]:
    order = np.random.default_rng(0).permutation(len(samples))[:count]
    loader = Loader(dataset, [samples[index] for index in order])
    batches = list(loader.evaluation_batches(Preprocess(height=SIDE, width=SIDE), _EVALUATION_BATCH))
    if not batches:
        raise DataError(f"no image of {dataset.name} can be read")
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.targets for batch in batches])


@dataclass(frozen=True)
class Recipe:
    """How a small run trains: SGD with Nesterov momentum, the rate rising for 15% of the run, then a cosine.

    Attributes:
        epochs: passes over the training images.
        rate: the highest learning rate.
        batch: images a step.
        label_smoothing, aux_weight: see `training_loss`.
    """

    epochs: int
    rate: float
    batch: int = 32
    label_smoothing: float = 0.0
    aux_weight: float = 0.3


@dataclass(frozen=True)
class Outcome:
    """What a small run reached.

    Attributes:
        top1: share of the test images answered rightly, in 0..1.
        train_loss: mean loss of the last epoch, auxiliary losses included.
        seconds: of training.
    """

    top1: float
    train_loss: float
    seconds: float


Watch = Callable[[Network, float], None]
"""Sees the network between the backward pass and the step, and how many epochs are done (a fraction)."""


def train(
    network: Network,
    images: Images,
    recipe: Recipe,
    seed: int,
    device: str = "cpu",
    watch: Watch | None = None,
) -> Outcome:
    """Train `network` on `images` and measure it on the test images.

    The order of the images, their views and dropout follow `seed` alone, so that runs of the same seed differ
    only in the network. Raises TrainingError when the loss is not finite.
    """
    where = choose_device(device)
    precision = choose_precision("auto", where)
    place(network, where)
    optimizer = make_optimizer(
        network, TrainConfig(optimizer="sgd", learning_rate=recipe.rate, weight_decay=5e-4)
    )
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed + 1)
    per_epoch = math.ceil(len(images.train) / recipe.batch)
    preprocess = Preprocess(height=SIDE, width=SIDE)
    started, loss_sum = time.perf_counter(), 0.0
    for epoch in range(recipe.epochs):
        loss_sum = 0.0
        network.train()
        order = torch.split(torch.randperm(len(images.train), generator=generator), recipe.batch)
        for number, chosen in enumerate(order):
            step = epoch * per_epoch + number
            factor = rate_factor("cosine", step, recipe.epochs * per_epoch, per_epoch, WARM_UP)
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * factor
            views = augmented(images.train[chosen], images.flip, generator)
            batch = preprocess.normalize(views.to(where)).contiguous(memory_format=torch.channels_last)
            with autocast(where, precision):
                output = network(batch)
            targets = images.train_targets[chosen].to(where)
            loss = training_loss(output, targets, recipe.label_smoothing, recipe.aux_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if watch is not None:
                watch(network, step / per_epoch)
            optimizer.step()
            loss_sum += float(loss.detach()) * len(chosen)
        if not math.isfinite(loss_sum):
            raise TrainingError(f"the loss is not finite in epoch {epoch + 1}: lower the learning rate")
    seconds = time.perf_counter() - started
    return Outcome(accuracy(network, images, where), loss_sum / len(images.train), seconds)


@torch.inference_mode()
def accuracy(network: Network, images: Images, device: torch.device) -> float:
    """Share of the test images that `network` answers rightly, in 0..1."""
    preprocess = Preprocess(height=SIDE, width=SIDE)
    network.eval()
    right = 0
    for start in range(0, len(images.test), _EVALUATION_BATCH):
        chosen = slice(start, start + _EVALUATION_BATCH)
        batch, targets = images.test[chosen], images.test_targets[chosen]
        normal = preprocess.normalize(batch.to(device)).contiguous(memory_format=torch.channels_last)
        right += int((network(normal).argmax(1).cpu() == targets).sum())
    return right / len(images.test)


def augmented(batch: Tensor, flip: bool, generator: torch.Generator) -> Tensor:
    """Each image moved by up to an eighth of its side, zeros behind it, and half of them mirrored if `flip`.

    uint8 N x C x S x S in, the same shape out.
    """
    count, _, side, _ = batch.shape
    reach = side // 8
    windows = F.pad(batch, (reach,) * 4).unfold(2, side, 1).unfold(3, side, 1)
    down, right = torch.randint(0, 2 * reach + 1, (2, count), generator=generator)
    moved = windows[torch.arange(count), :, down, right]
    if not flip:
        return moved
    mirrored = torch.rand(count, generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], moved.flip(3), moved)


def run_variants(
    names: Iterable[str],
    make: Callable[[str], tuple[Network, Recipe]],
    images: Images,
    options: Options,
    say: Callable[[str], None],
) -> dict[str, list[Outcome]]:
    """Every variant with every seed, the variants taking turns.

    Args:
        names: of the variants.
        make: gives a fresh network for a name, its weights from torch's generator, and how to train it.
        images: to train and to measure on.
        options: the seeds and the device.
        say: hears each result.
    """
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    for seed in range(options.seeds):
        for name, runs in outcomes.items():
            torch.manual_seed(seed)
            network, recipe = make(name)
            outcome = train(network, images, recipe, seed, options.device)
            runs.append(outcome)
            say(f"seed {seed}, {name}: {100 * outcome.top1:.1f}% in {outcome.seconds:.0f} s")
    return outcomes


def setting(images: Images, options: Options, **more: str) -> dict[str, str]:
    """What is said about the runs beside their results."""
    return {
        "data": images.name,
        "training images": str(len(images.train)),
        "test images": str(len(images.test)),
        "epochs": str(options.epochs),
        **more,
    }
