"""Can a map be trusted? Deletion and insertion curves against random maps, and randomised weights."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from inception.errors import UsageError
from inception.explain.attribution import Question
from inception.explain.layers import activations, borrowed
from inception.explain.pictures import blur
from inception.nets.network import Network, initialize

STEPS = 20
RANDOM_MAPS = 5
RANDOM_CELLS = 7
"""Random maps are as coarse as Grad-CAM's, so that the comparison is fair: fine noise alone disturbs."""


@dataclass(frozen=True)
class Curves:
    """Probability of the class while pixels vanish or appear, the most important first.

    Attributes:
        deletion: probabilities after 0, 1, … STEPS equal shares of the pixels turned to the mean colour.
        insertion: the same while a blurred image gets its pixels back.
    """

    deletion: tuple[float, ...]
    insertion: tuple[float, ...]

    @property
    def deletion_score(self) -> float:
        """Area under the curve, in 0..1: the lower, the better the map."""
        return _area(self.deletion)

    @property
    def insertion_score(self) -> float:
        """Area under the curve, in 0..1: the higher, the better the map."""
        return _area(self.insertion)

    def to_dict(self, random: tuple[float, float]) -> dict[str, Any]:
        """JSON-safe. `random` are the scores of random maps (`random_scores`); a positive gain beats them."""
        deletion, insertion = self.deletion_score, self.insertion_score
        return {
            "deletion": deletion,
            "insertion": insertion,
            "random_deletion": random[0],
            "random_insertion": random[1],
            "deletion_gain": random[0] - deletion,
            "insertion_gain": insertion - random[1],
            "deletion_curve": list(self.deletion),
            "insertion_curve": list(self.insertion),
        }


def curves(network: Network, image: Tensor, attribution: Tensor, question: Question, seed: int = 0) -> Curves:
    """Deletion and insertion curves of one map.

    Args:
        network: in any mode; it is left as it was.
        image: normalised, C x H x W.
        attribution: H x W, larger is more important; equal values are ordered at random.
        question: whose target's probability is followed.
        seed: of that random order.

    Source: Petsiuk et al. 2018, "RISE", section 4.1.
    """
    order = _ranks(attribution, seed)
    blurred = blur(image[None], 1 / 20)[0]
    shares = torch.arange(STEPS + 1, device=image.device) / STEPS
    chosen = order[None] < (shares * order.numel()).round()[:, None, None]  # STEPS + 1 x H x W
    mask = chosen[:, None].to(image.dtype)
    with borrowed(network), torch.no_grad():
        deleted = _probabilities(network, image * (1 - mask), question)
        inserted = _probabilities(network, blurred * (1 - mask) + image * mask, question)
    return Curves(tuple(deleted.tolist()), tuple(inserted.tolist()))


def random_scores(network: Network, image: Tensor, question: Question, seed: int = 0) -> tuple[float, float]:
    """Mean deletion and insertion score of `RANDOM_MAPS` random maps; arguments as in `curves`."""
    generator = torch.Generator().manual_seed(seed)
    size = (int(image.shape[1]), int(image.shape[2]))
    found = []
    for _ in range(RANDOM_MAPS):
        cells = torch.rand(1, 1, RANDOM_CELLS, RANDOM_CELLS, generator=generator)
        noise = F.interpolate(cells, size, mode="bilinear", align_corners=False)[0, 0]
        found.append(curves(network, image, noise.to(image.device), question, seed))
    return (
        float(np.mean([item.deletion_score for item in found])),
        float(np.mean([item.insertion_score for item in found])),
    )


def mean_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95% bootstrap interval (percentiles of 2,000 resamples): mean, low, high."""
    if not values:
        raise UsageError("a mean needs at least one value")
    numbers = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(numbers), (2000, len(numbers)))
    low, high = np.quantile(numbers[draws].mean(axis=1), (0.025, 0.975))
    return float(numbers.mean()), float(low), float(high)


def randomisation(
    network: Network, explain: Callable[[Network], Tensor], levels: int = 4, seed: int = 0
) -> list[tuple[str, float]]:
    """How alike a map stays when weights are replaced by random ones, from the classifier downwards.

    Args:
        network: it is copied, never changed.
        explain: network -> map, any shape.
        levels: how many stages of the cascade are measured; the last has no trained weight left.
        seed: of the random weights.

    Returns:
        (the deepest stage that was randomised, Spearman's correlation of the absolute maps in -1..1). A map
        that stays alike does not depend on what was learnt. Source: Adebayo et al. 2018, "Sanity Checks for
        Saliency Maps".
    """
    copied = copy.deepcopy(network)
    original = explain(network)
    heads = [name for name, _ in copied.named_children() if name not in copied.endpoints]
    groups = [heads, *([name] for name in reversed(copied.endpoints))]
    groups = [
        group for group in groups if any(True for name in group for _ in _child(copied, name).parameters())
    ]
    last = len(groups) - 1
    measured = {round(index * last / max(levels - 1, 1)) for index in range(levels)}
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for index, group in enumerate(groups):
            for name in group:
                _randomise(_child(copied, name))
            if index in measured:
                name = "classifier" if index == 0 else group[0]
                found.append((name, spearman(original.abs(), explain(copied).abs())))
    return found


def spearman(a: Tensor, b: Tensor) -> float:
    """Rank correlation of two maps of the same shape, in -1..1; 0 where one is constant."""
    first, second = (_mean_ranks(values.detach().cpu().double().flatten().numpy()) for values in (a, b))
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[inverse]
    return ranks


def _child(network: Network, name: str) -> nn.Module:
    return network.get_submodule(name)


def _randomise(module: nn.Module) -> None:
    initialize(module)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            for parameter, value in ((layer.weight, 1.0), (layer.bias, 0.0)):
                if parameter is not None:
                    nn.init.constant_(parameter, value)


def _probabilities(network: Network, images: Tensor, question: Question) -> Tensor:
    found = activations(network, images.contiguous(memory_format=torch.channels_last), [question.head])
    return torch.softmax(found[question.head].float(), dim=1)[:, question.target]


def _ranks(attribution: Tensor, seed: int) -> Tensor:
    """H x W -> whole numbers from 0 (most important); ties in random order."""
    values = attribution.flatten().cpu()
    shuffled = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    order = shuffled[values[shuffled].argsort(descending=True, stable=True)]
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks.view(attribution.shape).to(attribution.device)


def _area(values: Sequence[float]) -> float:
    numbers = np.asarray(values)
    return float(((numbers[1:] + numbers[:-1]) / 2).mean())
