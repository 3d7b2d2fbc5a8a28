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
"""Counts of each image (B x N) in, one number for each of the B resamples out."""


def bootstrap_interval(
    count: int, statistic: Statistic, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """95% percentile interval of a statistic of `count` images, drawn again and again with replacement.

    Args:
        count: number of images N.
        statistic: told how often each image was drawn, as int64 B x N, rows summing to N.
        resamples: how many times all images are drawn.
        seed: of the draws; equal seeds draw the same images, whatever the statistic.

    Raises:
        UsageError: there is no image, or fewer than 100 resamples.
    """
    if count < 1 or resamples < 100:
        raise UsageError(
            f"a bootstrap needs an image and at least 100 resamples, got {count} and {resamples}"
        )
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_NUMBERS // count)
    even = np.full(count, 1 / count)
    values = [
        statistic(generator.multinomial(count, even, size=min(block, resamples - start)))
        for start in range(0, resamples, block)
    ]
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(np.concatenate(values), [tail, 1 - tail])
    return float(low), float(high)


def mean_interval(values: NDArray[np.generic], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """95% bootstrap interval of the mean of one number (or truth value) an image, of shape N.

    Of `left - right` it is the paired interval of a difference: each image is drawn with both its answers.
    """
    numbers = np.asarray(values).astype(np.float64)
    return bootstrap_interval(
        len(numbers), lambda counts: counts @ numbers / len(numbers), resamples=resamples, seed=seed
    )


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
    present, place = np.unique(samples.targets, return_inverse=True)

    def balanced(counts: IntArray) -> FloatArray:
        recalls = np.empty(len(counts))
        for row, weights in enumerate(counts):
            drawn = np.bincount(place, weights=weights, minlength=len(present))
            right = np.bincount(place, weights=weights * samples.correct, minlength=len(present))
            recalls[row] = (right[drawn > 0] / drawn[drawn > 0]).mean()
        return recalls

    # A class in most images makes this slow, and a quarter of the draws serves as well.
    fewer = max(100, resamples // 4)
    intervals["balanced_accuracy"] = bootstrap_interval(
        len(samples.targets), balanced, resamples=fewer, seed=seed
    )
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
