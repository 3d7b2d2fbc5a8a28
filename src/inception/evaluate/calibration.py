"""Does a confidence of 80% mean right 8 times in 10? Measuring that, and mending it.

Sources: Guo et al., "On Calibration of Modern Neural Networks" (2017), for the expected calibration
error and for temperature scaling; Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and
Out-of-Distribution Examples" (2017), for the largest probability as the sign of an unknown image.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inception.errors import UsageError
from inception.evaluate.scores import SampleScores, check_logits, score_samples, slices

BINS = 15

# Beyond these a temperature says only that the images are too few or all right or all wrong.
_TEMPERATURE_RANGE = (0.01, 100.0)


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose confidence lies in (`lower`, `upper`].

    Attributes:
        count: how many there are.
        confidence: their mean confidence, or None when there is none.
        accuracy: the fraction answered rightly, or None when there is none.
    """

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


def reliability_bins(scores: SampleScores, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Sort images by confidence into `bins` intervals of equal width; all are returned, also empty ones."""
    place = np.clip(np.ceil(scores.confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    confidence = np.bincount(place, weights=scores.confidence, minlength=bins)
    correct = np.bincount(place, weights=scores.correct, minlength=bins)
    return tuple(
        ReliabilityBin(
            lower=index / bins,
            upper=(index + 1) / bins,
            count=int(count),
            confidence=float(confidence[index] / count) if count else None,
            accuracy=float(correct[index] / count) if count else None,
        )
        for index, count in enumerate(counts)
    )


def expected_calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by images; in [0, 1]."""
    total = sum(item.count for item in bins)
    gaps = (
        item.count * abs(item.confidence - item.accuracy)
        for item in bins
        if item.confidence is not None and item.accuracy is not None
    )
    return sum(gaps) / total if total else 0.0


def fit_temperature(logits: NDArray[np.floating], targets: NDArray[np.integer]) -> float:
    """The temperature that makes the mean cross-entropy of `logits / temperature` smallest.

    As in Platt (1999), the targets are smoothed by 1 / (N + 2): a few images that are all answered rightly
    are no proof of certainty.

    The cross-entropy is convex in 1 / temperature, so Newton's steps inside a shrinking bracket find
    the one minimum. Fit it on images that are neither trained nor tested on.

    Args:
        logits: N x K, floating, finite.
        targets: N class numbers in 0 … K-1.

    Returns:
        A number in [0.01, 100]; the ends mean that the true minimum lies beyond.
        1.0 when the temperature makes no difference.

    Raises:
        InceptionError: what `check_logits` raises.
    """
    logits, targets = check_logits(logits, targets)
    smallest, largest = _TEMPERATURE_RANGE
    low, high, inverse = 1 / largest, 1 / smallest, 1.0
    if _slopes(logits, targets, low)[0] > 0:
        return largest
    if _slopes(logits, targets, high)[0] < 0:
        return smallest
    for _ in range(100):
        slope, curvature = _slopes(logits, targets, inverse)
        if slope == 0.0:
            break
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else math.inf
        # Newton's step where it stays inside the bracket; else the middle, in the logarithm.
        following = step if low < step < high else math.sqrt(low * high)
        if abs(following - inverse) <= 1e-10 * inverse:
            break
        inverse = following
    return 1 / inverse


def _slopes(logits: NDArray[np.floating], targets: NDArray[np.int64], inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean smoothed cross-entropy of `inverse * logits` by `inverse`."""
    first = second = 0.0
    smoothing = 1 / (len(logits) + 2)
    for rows in slices(logits):
        part = logits[rows].astype(np.float64)
        part -= part.max(axis=1, keepdims=True)
        wanted = part[np.arange(len(part)), targets[rows]]
        wanted = (1 - smoothing) * wanted + smoothing * part.mean(axis=1)
        probabilities = np.exp(inverse * part)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        mean = (probabilities * part).sum(axis=1)
        first += float((mean - wanted).sum())
        second += float((probabilities * np.square(part - mean[:, None])).sum())
    return first / len(logits), second / len(logits)


def unknown_threshold(
    logits: NDArray[np.floating],
    targets: NDArray[np.integer],
    keep: float = 0.95,
    *,
    temperature: float = 1.0,
) -> float:
    """The confidence below which to answer "unknown".

    It is the largest threshold that still keeps (confidence at or above it) the fraction `keep` of the
    images that are answered rightly.

    Args:
        logits: N x K, floating, finite.
        targets: N class numbers in 0 … K-1.
        keep: the fraction of right answers to keep, in (0, 1].
        temperature: the logits are divided by it before the softmax; more than 0.

    Returns:
        A probability in [0, 1]; 0 (never unknown) when no image is answered rightly.

    Raises:
        UsageError: `keep` is outside (0, 1].
        InceptionError: what `score_samples` raises.
    """
    if not 0 < keep <= 1:
        raise UsageError(f"keep must be a fraction above 0 and at most 1, got {keep}")
    scores = score_samples(logits, targets, temperature=temperature)
    confidences = np.sort(scores.confidence[scores.correct])[::-1]
    if len(confidences) == 0:
        return 0.0
    # 0.07 * 100 is a little more than 7 in floating point and must still mean 7.
    kept = math.ceil(keep * len(confidences) - 1e-9)
    return float(confidences[max(kept, 1) - 1])
