"""Several classifiers as one: classes aligned by name, softmax outputs averaged, equally or by weights.

Source of the average: Szegedy et al. 2015, section 7 ("softmax probabilities are averaged over multiple crops
and over all the individual classifiers"). The weights are those of the mixture under which the validation
images' true classes are most probable, found by expectation maximisation (Dempster et al. 1977).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inception.errors import UsageError

_SHOWN = 3
_SMALLEST = 1e-300


def label_order(reference: Sequence[str], labels: Sequence[str], name: str) -> NDArray[np.int64] | None:
    """Where the classes of `reference` stand in `labels`; None when both are the same list.

    `probabilities[:, order]` of a classifier with `labels` is in the order of `reference`.

    Args:
        reference: the first classifier's labels.
        labels: another's.
        name: what an error calls the other.

    Raises:
        UsageError: the classes differ, or a name stands for two classes and the lists are not equal.
    """
    if tuple(reference) == tuple(labels):
        return None
    missing = [label for label in reference if label not in set(labels)]
    extra = [label for label in labels if label not in set(reference)]
    if missing or extra:
        parts = [f"it lacks {_shown(missing)}"] if missing else []
        parts += [f"it alone has {_shown(extra)}"] if extra else []
        raise UsageError(
            f"{name} has other classes than the first bundle: {' and '.join(parts)}; "
            "only classifiers of the same classes can be compared or combined"
        )
    if len(set(reference)) < len(reference) or len(set(labels)) < len(labels):
        raise UsageError(
            f"{name} has its classes in another order than the first bundle, and some names stand for two "
            "classes, so that they cannot be matched; give both bundles the same labels"
        )
    position = {label: index for index, label in enumerate(labels)}
    return np.array([position[label] for label in reference], dtype=np.int64)


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def average(
    probabilities: Sequence[NDArray[np.floating]], weights: Sequence[float] | None = None
) -> NDArray[np.float32]:
    """The weighted mean of M arrays N x K of probabilities, float32; equal weights when None.

    Raises:
        UsageError: no array, different shapes, or weights that are not M positive shares.
    """
    if not probabilities or len({array.shape for array in probabilities}) != 1:
        raise UsageError("an ensemble needs answers of the same images and classes")
    shares = np.full(len(probabilities), 1.0) if weights is None else np.asarray(weights, dtype=np.float64)
    if shares.shape != (len(probabilities),) or (shares < 0).any() or shares.sum() <= 0:
        raise UsageError(f"{len(probabilities)} classifiers need as many weights of 0 or more")
    total = np.zeros(probabilities[0].shape, dtype=np.float64)
    for share, array in zip(shares / shares.sum(), probabilities, strict=True):
        total += share * array
    return total.astype(np.float32)


def fit_weights(
    probabilities: Sequence[NDArray[np.floating]], targets: NDArray[np.integer]
) -> tuple[float, ...]:
    """Shares of M classifiers that make the mean cross-entropy of their average smallest.

    The cross-entropy is convex in the shares, and every step of expectation maximisation lowers it. Fit it
    on images that are neither trained nor tested on.

    Args:
        probabilities: M arrays N x K.
        targets: N true classes.

    Returns:
        M numbers of 0 or more that sum to 1.

    Raises:
        UsageError: no array or no image.
    """
    if not probabilities or not len(targets):
        raise UsageError("weights of an ensemble need answers to at least one image")
    rows = np.arange(len(targets))
    of_truth = np.stack([array[rows, targets] for array in probabilities], axis=1).astype(np.float64)
    of_truth = np.maximum(of_truth, _SMALLEST)
    shares = np.full(len(probabilities), 1 / len(probabilities))
    for _ in range(10_000):
        joint = of_truth * shares
        following = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(following - shares).max() < 1e-10:
            break
        shares = following
    return tuple(float(share) for share in shares)
