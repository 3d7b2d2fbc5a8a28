"""One row of numbers per image, computed from logits in float64: the base of every metric."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inception.errors import DataError, InceptionError, UsageError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Rows are handled in slices of about this many numbers, so that memory does not grow with the images.
_SLICE_NUMBERS = 1 << 21


@dataclass(frozen=True, eq=False)
class SampleScores:
    """What the network said about each of N images; every field is an array of length N.

    Attributes:
        targets: the true class, int64.
        predicted: the class of the largest logit, int64; of equal logits the lowest class wins.
        rank: how many classes stand before the true one, int64 (0: the answer is right). Classes are
            ordered by logit, largest first, equal logits by class index, lowest first.
        confidence: probability of the predicted class, float64 in (0, 1].
        target_probability: probability of the true class, float64 in [0, 1].
        loss: cross-entropy in nats, float64, 0 or more.
        brier: sum over the classes of (probability - truth)^2, float64 in [0, 2].
        log_normalizer: log of the sum of exp(logits / temperature), float64.
    """

    targets: IntArray
    predicted: IntArray
    rank: IntArray
    confidence: FloatArray
    target_probability: FloatArray
    loss: FloatArray
    brier: FloatArray
    log_normalizer: FloatArray

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the predicted class is the true one, bool of length N."""
        return np.equal(self.predicted, self.targets)


def check_logits(
    logits: NDArray[np.floating], targets: NDArray[np.integer]
) -> tuple[NDArray[np.floating], IntArray]:
    """Return `logits` (N x K, floating) and `targets` (N, int64) when they fit each other.

    Raises:
        UsageError: wrong number of dimensions, different lengths, or targets outside 0 … K-1.
        DataError: there is no image at all.
        InceptionError: a logit is infinite or not a number.
    """
    logits, targets = np.asarray(logits), np.asarray(targets)
    if logits.ndim != 2 or logits.shape[1] == 0 or not np.issubdtype(logits.dtype, np.floating):
        raise UsageError(
            f"logits must be images x classes floats, got {logits.dtype} of shape {logits.shape}"
        )
    if targets.shape != logits.shape[:1]:
        raise UsageError(f"{logits.shape[0]} rows of logits need as many targets, got shape {targets.shape}")
    if len(targets) == 0:
        raise DataError("There is no image to measure; check that the split has images that can be read.")
    if not np.issubdtype(targets.dtype, np.integer):
        raise UsageError(f"targets must be class numbers (integers), got {targets.dtype}")
    if targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise UsageError(
            f"targets must lie in 0 … {logits.shape[1] - 1}, got {targets.min()} … {targets.max()}; "
            "the labels of the images and of the model differ"
        )
    for rows in slices(logits):
        bad = ~np.isfinite(logits[rows]).all(axis=1)
        if bad.any():
            raise InceptionError(
                f"The network's answer for image {rows.start + int(bad.argmax())} (counted from 0) is not "
                "finite (NaN or infinity); its weights or its precision are at fault, not the image."
            )
    return logits, targets.astype(np.int64)


def slices(logits: NDArray[np.floating]) -> Iterator[slice]:
    """Cut the N rows of `logits` (N x K) into slices small enough to be copied in float64."""
    step = max(1, _SLICE_NUMBERS // logits.shape[1])
    for start in range(0, len(logits), step):
        yield slice(start, min(start + step, len(logits)))


def score_samples(
    logits: NDArray[np.floating], targets: NDArray[np.integer], *, temperature: float = 1.0
) -> SampleScores:
    """Score N images.

    Args:
        logits: N x K, floating, finite.
        targets: N class numbers in 0 … K-1.
        temperature: the logits are divided by it before the softmax; more than 0.

    Raises:
        InceptionError: what `check_logits` raises.
        UsageError: the temperature is not a positive number.
    """
    logits, targets = check_logits(logits, targets)
    if not (np.isfinite(temperature) and temperature > 0):
        raise UsageError(f"temperature must be a positive number, got {temperature}")
    parts = [_score_slice(logits[rows], targets[rows], temperature) for rows in slices(logits)]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    predicted, rank, confidence, probability, loss, brier, normalizer = columns
    return SampleScores(targets, predicted, rank, confidence, probability, loss, brier, normalizer)


def _score_slice(
    logits: NDArray[np.floating], targets: IntArray, temperature: float
) -> tuple[NDArray[np.generic], ...]:
    rows = np.arange(len(targets))
    of_target = logits[rows, targets][:, None]
    before = np.arange(logits.shape[1]) < targets[:, None]
    rank = ((logits > of_target) | ((logits == of_target) & before)).sum(axis=1)
    predicted = logits.argmax(axis=1)

    scaled = logits.astype(np.float64) / temperature
    largest = scaled.max(axis=1)
    powers = np.exp(scaled - largest[:, None])
    sums = powers.sum(axis=1)
    probabilities = powers / sums[:, None]
    of_truth = probabilities[rows, targets]
    # Rounding may leave a certain answer at -1e-16.
    loss = np.maximum(np.log(sums) + largest - scaled[rows, targets], 0.0)
    brier = np.square(probabilities).sum(axis=1) - 2 * of_truth + 1
    return (
        predicted.astype(np.int64),
        rank.astype(np.int64),
        probabilities[rows, predicted],
        of_truth,
        loss,
        np.maximum(brier, 0.0),
        np.log(sums) + largest,
    )
