"""How near generated images are to real ones: FID, KID, and the Inception Score.

Sources: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (2017), for FID; Binkowski et al.,
"Demystifying MMD GANs" (2018), for KID; Salimans et al., "Improved Techniques for Training GANs" (2016), for
the Inception Score. Subsets and shuffles are drawn as torch-fidelity draws them, so that equal features give
equal numbers.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inception.errors import DataError, UsageError
from inception.evaluate.scores import FloatArray
from inception.files import atomic_path

SEED = 2020
SUBSETS, SUBSET_SIZE, SPLITS = 100, 1000, 10


@dataclass(frozen=True, eq=False)
class Statistics:
    """The Gaussian that FID compares.

    Attributes:
        mean: float64 of length D.
        covariance: float64 D x D.
        root: float64 D x N with root root^T = covariance, where there are fewer images N than features D.
    """

    mean: FloatArray
    covariance: FloatArray
    root: FloatArray | None = None


@dataclass(frozen=True)
class Spread:
    """A mean over subsets or splits, and their standard deviation."""

    mean: float
    std: float


def feature_statistics(features: NDArray[np.floating]) -> Statistics:
    """Mean and unbiased covariance of N x D features, in float64; UsageError for fewer than two images."""
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise UsageError(f"statistics need features of two images or more, got shape {values.shape}")
    mean = values.mean(axis=0)
    root: FloatArray = (values - mean).T / np.sqrt(len(values) - 1)
    return Statistics(mean, root @ root.T, root if root.shape[1] < root.shape[0] else None)


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write `mu` and `sigma` as `.npz`, the form that pytorch-fid and others read, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, mu=statistics.mean, sigma=statistics.covariance)


def load_statistics(path: Path) -> Statistics:
    """Read an `.npz` with `mu` (D) and `sigma` (D x D).

    Raises:
        DataError: it cannot be read or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            mean = np.asarray(file["mu"], dtype=np.float64)
            covariance = np.asarray(file["sigma"], dtype=np.float64)
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} holds no FID statistics (mu and sigma): {error}") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise DataError(f"{path} holds mu of shape {mean.shape} and sigma of shape {covariance.shape}")
    return Statistics(mean, covariance)


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """Squared Fréchet distance of two Gaussians: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    With C = R R^T the last trace is the sum of the singular values of R1^T R2, which needs no root of a
    matrix that is not symmetric and keeps its precision where the covariances are singular.

    Raises:
        UsageError: different numbers of features.
    """
    if first.mean.shape != second.mean.shape:
        raise UsageError(f"FID compares as many features, got {len(first.mean)} and {len(second.mean)}")
    cross = np.linalg.svd(_root(first).T @ _root(second), compute_uv=False).sum()
    difference = first.mean - second.mean
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return float(difference @ difference + traces - 2 * cross)


def _root(statistics: Statistics) -> FloatArray:
    """R with R R^T = covariance; directions without variance but for rounding are left out."""
    if statistics.root is not None:
        return statistics.root
    covariance = statistics.covariance
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    root: FloatArray = vectors[:, kept] * np.sqrt(values[kept])
    return root


def kernel_distance(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    *,
    subsets: int = SUBSETS,
    subset_size: int | None = None,
    seed: int = SEED,
) -> Spread:
    """KID: unbiased squared maximum mean discrepancy under the kernel (x . y / D + 1)^3, over random subsets.

    Args:
        first, second: features N1 x D and N2 x D.
        subsets: how many pairs of subsets are drawn.
        subset_size: images of each side in a subset; None: 1000, or as many as both sides have.
        seed: of the draws.

    Raises:
        UsageError: subsets larger than a side, or smaller than two.
    """
    size = min(SUBSET_SIZE, len(first), len(second)) if subset_size is None else subset_size
    if not 2 <= size <= min(len(first), len(second)) or subsets < 1:
        raise UsageError(
            f"KID needs subsets of 2 to {min(len(first), len(second))} images, not {subsets} of {size}"
        )
    left, right = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    generator = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        one = left[generator.choice(len(left), size, replace=False)]
        other = right[generator.choice(len(right), size, replace=False)]
        values.append(_discrepancy(one, other))
    return Spread(float(np.mean(values)), float(np.std(values)))


def _discrepancy(one: FloatArray, other: FloatArray) -> float:
    def kernel(x: FloatArray, y: FloatArray) -> FloatArray:
        values: FloatArray = (x @ y.T / x.shape[1] + 1) ** 3
        return values

    size = len(one)
    own = sum(kernel(side, side).sum() - np.trace(kernel(side, side)) for side in (one, other))
    return float(own / (size * (size - 1)) - 2 * kernel(one, other).mean())


def inception_score(logits: NDArray[np.floating], *, splits: int = SPLITS, seed: int = SEED) -> Spread:
    """exp of the mean KL divergence between each image's classes and all images' classes, over splits.

    Args:
        logits: N x K, without the classifier's bias.
        splits: parts of the shuffled images, each scored alone.
        seed: of the shuffle.

    Raises:
        UsageError: fewer images than splits.
    """
    if not 1 <= splits <= len(logits):
        raise UsageError(f"the Inception Score needs 1 to {len(logits)} splits, not {splits}")
    values = np.asarray(logits, dtype=np.float64)[np.random.RandomState(seed).permutation(len(logits))]
    log_all = values - values.max(axis=1, keepdims=True)
    log_all -= np.log(np.exp(log_all).sum(axis=1, keepdims=True))
    scores = []
    for part in range(splits):
        logs = log_all[part * len(values) // splits : (part + 1) * len(values) // splits]
        shares = np.exp(logs)
        divergence = (shares * (logs - np.log(shares.mean(axis=0)))).sum(axis=1)
        scores.append(float(np.exp(divergence.mean())))
    return Spread(float(np.mean(scores)), float(np.std(scores)))
