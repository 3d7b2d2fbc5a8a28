"""How sure a number is: bootstrap intervals, paired differences, and McNemar's test.

Sources: Efron, "Bootstrap Methods: Another Look at the Jackknife" (1979), for resampling and percentile
intervals; McNemar, "Note on the sampling error of the difference between correlated proportions" (1947).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inception.errors import UsageError
from inception.evaluate.metrics import Interval
from inception.evaluate.scores import FloatArray, IntArray, SampleScores

RESAMPLES = 2000
_LEVEL = 0.95
# Resamples are drawn in blocks of about this many numbers.
_BLOCK_NUMBERS = 1 << 22

Statistic = Callable[[IntArray], FloatArray]
"""How many images of each kind were drawn (B x kinds) in, one number for each of the B resamples out."""


def bootstrap_interval(
    sizes: NDArray[np.integer], statistic: Statistic, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """95% percentile interval of a statistic of N images, drawn again and again with replacement.

    Images that are alike to the statistic are one kind: drawing how many there are of each kind is the same
    as drawing images, and much faster.

    Args:
        sizes: number of images of each kind; their sum is N.
        statistic: told how many images of each kind were drawn, as int64 B x kinds, rows summing to N.
        resamples: how many times N images are drawn.
        seed: of the draws.

    Raises:
        UsageError: there is no image, or fewer than 100 resamples.
    """
    count = int(np.sum(sizes))
    if count < 1 or resamples < 100:
        raise UsageError(
            f"a bootstrap needs an image and at least 100 resamples, got {count} and {resamples}"
        )
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_NUMBERS // len(sizes))
    shares = np.asarray(sizes, dtype=np.float64) / count
    values = [
        statistic(generator.multinomial(count, shares, size=min(block, resamples - start)))
        for start in range(0, resamples, block)
    ]
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(np.concatenate(values), [tail, 1 - tail])
    return float(low), float(high)


def mean_interval(values: NDArray[np.generic], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """95% bootstrap interval of the mean of one number (or truth value) an image, of shape N.

    Of `left - right` it is the paired interval of a difference: each image is drawn with both its answers.
    """
    numbers, sizes = np.unique(np.asarray(values).astype(np.float64), return_counts=True)
    count = sizes.sum()
    return bootstrap_interval(sizes, lambda drawn: drawn @ numbers / count, resamples=resamples, seed=seed)


def score_intervals(
    samples: SampleScores, classes: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """95% bootstrap intervals of `top1`, `top5`, `loss`, `brier` and `balanced_accuracy`.

    Args:
        samples: the scores of N images.
        classes: number of classes K; with fewer than five, top-5 is among all.
        resamples, seed: see `bootstrap_interval`.

    The balanced accuracy of a resample is the mean recall of the classes drawn in it; with few images a
    class its interval is wide.
    """
    means: Mapping[str, NDArray[np.generic]] = {
        "top1": samples.rank == 0,
        "top5": samples.rank < min(5, classes),
        "loss": samples.loss,
        "brier": samples.brier,
    }
    intervals = {
        name: mean_interval(values, resamples=resamples, seed=seed) for name, values in means.items()
    }
    # Kinds: wrong and right answers of each class that occurs.
    present, place = np.unique(samples.targets, return_inverse=True)
    sizes = np.bincount(2 * place + samples.correct, minlength=2 * len(present))

    def balanced(drawn: IntArray) -> FloatArray:
        wrong, right = drawn[:, 0::2], drawn[:, 1::2]
        there = (wrong + right) > 0
        means: FloatArray = (right / np.maximum(wrong + right, 1)).sum(axis=1) / there.sum(axis=1)
        return means

    intervals["balanced_accuracy"] = bootstrap_interval(sizes, balanced, resamples=resamples, seed=seed)
    return intervals


@dataclass(frozen=True)
class McNemar:
    """Whether two classifiers that answered the same images differ.

    Attributes:
        only_first: images that only the first answered rightly.
        only_second: images that only the second answered rightly.
        statistic: (|only_first - only_second| - 1)^2 / (only_first + only_second), with Edwards's correction.
        chi_square_p: its probability under equal classifiers, chi-square with one degree of freedom.
        exact_p: the two-sided binomial probability, which holds for any number of images.
    """

    only_first: int
    only_second: int
    statistic: float
    chi_square_p: float
    exact_p: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return asdict(self)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """McNemar's test on two arrays of length N: was image i answered rightly?

    Raises:
        UsageError: the arrays differ in length or hold no image.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise UsageError(
            f"McNemar's test needs two rows of answers to the same images, got {first.shape} and "
            f"{second.shape}"
        )
    left, right = int((first & ~second).sum()), int((~first & second).sum())
    different = left + right
    statistic = max(abs(left - right) - 1, 0) ** 2 / different if different else 0.0
    return McNemar(
        left, right, statistic, math.erfc(math.sqrt(statistic / 2)), _binomial_p(min(left, right), different)
    )


def _binomial_p(fewer: int, trials: int) -> float:
    """Two-sided probability of at most `fewer` or at least `trials - fewer` heads of a fair coin."""
    if trials == 0 or 2 * fewer == trials:
        return 1.0
    logs = [
        math.lgamma(trials + 1) - math.lgamma(heads + 1) - math.lgamma(trials - heads + 1)
        for heads in range(fewer + 1)
    ]
    largest = max(logs)
    tail = largest + math.log(math.fsum(math.exp(value - largest) for value in logs))
    return min(1.0, 2.0 * math.exp(tail - trials * math.log(2.0)))
