"""What answers are worth when an image may have several labels, or none: every label a question of its own.

Conventions as in `metrics`: fractions, nats, and None for an undefined ratio, which counts as 0 in means over
the labels that occur. Average precision is the sum of (R_n - R_n-1) P_n over the distinct scores, not
interpolated (as scikit-learn has it); mAP is its mean over the labels that occur.
"""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inception.data.csv_text import CsvWriter
from inception.errors import DataError, InceptionError, UsageError

Logits = NDArray[np.floating[Any]]
Truth = NDArray[np.bool_]
USUAL_THRESHOLD = 0.5
FEW_POSITIVES = 5
"""A label with fewer images than this to fit on keeps the usual threshold."""


@dataclass(frozen=True)
class LabelMetrics:
    """One label; ratios lie in [0, 1] or are None where undefined.

    Attributes:
        support: images that have it.
        predicted: images given it: its probability reaches `threshold`.
        precision, recall, f1: at that threshold.
        average_precision: over all thresholds; None where no image has the label.
        roc_auc: chance that an image that has it gets a higher probability than one that has not.
    """

    index: int
    label: str
    support: int
    predicted: int
    threshold: float
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None
    roc_auc: float | None


@dataclass(frozen=True)
class Averages:
    """Precision, recall and F1: `micro` over all (image, label) pairs, `macro` over the labels that occur."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, eq=False)
class LabelsEvaluation:
    """The measured quality of a classifier with several labels an image, on N images of K labels.

    Attributes:
        labels: names of the K labels.
        n: number of images N.
        loss: mean binary cross-entropy over images and labels, in nats.
        map: mean average precision.
        exact: fraction of images all of whose labels are right.
        hamming: fraction of wrong (image, label) pairs.
        micro, macro: precision, recall and F1 at the thresholds.
        classes: one entry a label, in label order.
        probabilities: float64 N x K.
        truth: bool N x K.
    """

    labels: tuple[str, ...]
    n: int
    loss: float
    map: float
    exact: float
    hamming: float
    micro: Averages
    macro: Averages
    classes: tuple[LabelMetrics, ...]
    probabilities: NDArray[np.float64]
    truth: Truth

    @property
    def given(self) -> Truth:
        """Which labels each image is given: bool N x K."""
        thresholds = np.array([item.threshold for item in self.classes])
        given: Truth = self.probabilities >= thresholds
        return given

    def to_dict(self) -> dict[str, Any]:
        """Everything but the per-image arrays, ready for JSON."""
        return {
            "n": self.n,
            "map": self.map,
            "loss": self.loss,
            "exact": self.exact,
            "hamming": self.hamming,
            "micro": asdict(self.micro),
            "macro": asdict(self.macro),
            "classes": [asdict(item) for item in self.classes],
        }

    def per_class_csv(self) -> str:
        """The per-label table as CSV text with a header; an undefined ratio is an empty field."""
        stream = io.StringIO()
        writer = CsvWriter(stream)
        writer.writerow(LabelMetrics.__dataclass_fields__)
        writer.writerows(asdict(item).values() for item in self.classes)
        return stream.getvalue()


def evaluate_labels(
    logits: Logits, truth: Truth, labels: Sequence[str], thresholds: Sequence[float]
) -> LabelsEvaluation:
    """Measure a classifier from its logits N x K, the true labels bool N x K, and K thresholds in 0..1.

    Raises:
        UsageError: shapes that do not fit each other.
        DataError: there is no image, or none has a label.
        InceptionError: a logit is infinite or not a number.
    """
    logits, truth = _checked(logits, truth)
    if not len(labels) == len(thresholds) == logits.shape[1]:
        raise UsageError(
            f"{logits.shape[1]} outputs need as many labels and thresholds, "
            f"got {len(labels)} and {len(thresholds)}"
        )
    probabilities = sigmoid(logits)
    given = probabilities >= np.asarray(thresholds)
    classes = tuple(
        _label_metrics(
            index, label, float(thresholds[index]), logits[:, index], truth[:, index], given[:, index]
        )
        for index, label in enumerate(labels)
    )
    present = [item for item in classes if item.support]
    hits, answered, support = int((given & truth).sum()), int(given.sum()), int(truth.sum())
    # log(1 + exp(x)) - x y, without overflow.
    losses = np.logaddexp(0.0, logits) - logits * truth

    def mean(name: str) -> float:
        return sum(getattr(item, name) or 0.0 for item in present) / len(present)

    return LabelsEvaluation(
        labels=tuple(labels),
        n=len(logits),
        loss=float(losses.mean()),
        map=mean("average_precision"),
        exact=float((given == truth).all(axis=1).mean()),
        hamming=float((given != truth).mean()),
        micro=Averages(
            _ratio(hits, answered) or 0.0,
            _ratio(hits, support) or 0.0,
            _ratio(2 * hits, answered + support) or 0.0,
        ),
        macro=Averages(mean("precision"), mean("recall"), mean("f1")),
        classes=classes,
        probabilities=probabilities,
        truth=truth,
    )


def sigmoid(logits: Logits) -> NDArray[np.float64]:
    """Probabilities of logits, without overflow."""
    powers = np.exp(-np.abs(logits.astype(np.float64)))
    result: NDArray[np.float64] = np.where(logits >= 0, 1.0, powers) / (1.0 + powers)
    return result


def mean_average_precision(logits: Logits, truth: Truth) -> float:
    """mAP of logits N x K against bool N x K; 0 where no image has a label."""
    values = [average_precision(logits[:, index], truth[:, index]) for index in range(logits.shape[1])]
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else 0.0


def average_precision(scores: Logits, truth: NDArray[np.bool_]) -> float | None:
    """Average precision of one label over N images; None where no image has it."""
    positives = int(truth.sum())
    if not positives:
        return None
    hits, answered = _curve(scores, truth)[1:]
    gained = np.diff(hits, prepend=0.0) / positives
    return float((gained * hits / answered).sum())


def _curve(
    scores: Logits, truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Distinct scores, best first; right answers, and answers, down to each of them."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    return ordered[last], np.cumsum(truth[order], dtype=np.float64)[last], last + 1.0


def fit_thresholds(logits: Logits, truth: Truth) -> tuple[float, ...]:
    """For every label the probability from which F1 is largest; fit on images not trained or tested on.

    It lies in the middle between two images' probabilities; of equally good ones the nearest to 0.5 is taken,
    and labels of fewer than `FEW_POSITIVES` images keep 0.5.
    """
    logits, truth = _checked(logits, truth)
    return tuple(_fit_threshold(logits[:, index], truth[:, index]) for index in range(logits.shape[1]))


def _fit_threshold(scores: Logits, truth: NDArray[np.bool_]) -> float:
    positives = int(truth.sum())
    if positives < FEW_POSITIVES:
        return USUAL_THRESHOLD
    values, hits, answered = _curve(scores, truth)
    f1 = 2 * hits / (answered + positives)
    probabilities = sigmoid(values)
    middles = (probabilities + np.append(probabilities[1:], 0.0)) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    chosen = float(middles[best[np.argmin(np.abs(middles[best] - USUAL_THRESHOLD))]])
    return USUAL_THRESHOLD if _same_answers(probabilities, chosen) else chosen


def _same_answers(probabilities: NDArray[np.float64], threshold: float) -> bool:
    return bool(((probabilities >= threshold) == (probabilities >= USUAL_THRESHOLD)).all())


def _label_metrics(
    index: int,
    label: str,
    threshold: float,
    scores: Logits,
    truth: NDArray[np.bool_],
    given: NDArray[np.bool_],
) -> LabelMetrics:
    hits, answered, support = int((given & truth).sum()), int(given.sum()), int(truth.sum())
    return LabelMetrics(
        index=index,
        label=label,
        support=support,
        predicted=answered,
        threshold=threshold,
        precision=_ratio(hits, answered),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, answered + support),
        average_precision=average_precision(scores, truth),
        roc_auc=_roc_auc(scores, truth),
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _roc_auc(scores: Logits, truth: NDArray[np.bool_]) -> float | None:
    """The Mann-Whitney statistic; equal scores count half."""
    positive, count = int(truth.sum()), len(truth)
    if not 0 < positive < count:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    above = middle_rank[place[truth]].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (count - positive)))


def _checked(logits: Logits, truth: Truth) -> tuple[NDArray[np.float64], Truth]:
    numbers: NDArray[np.float64] = np.asarray(logits).astype(np.float64)
    truth = np.asarray(truth)
    if numbers.ndim != 2 or truth.shape != numbers.shape or truth.dtype != np.bool_:
        raise UsageError(
            f"logits and true labels must be images x labels, got {numbers.shape} and "
            f"{truth.dtype} {truth.shape}"
        )
    if not len(numbers):
        raise DataError("There is no image to measure; check that the split has images that can be read.")
    if not truth.any():
        raise DataError("None of the measured images has a label, so there is nothing to find.")
    if not np.isfinite(numbers).all():
        raise InceptionError(
            "The network's answers are not all finite (NaN or infinity); its weights or its precision are at "
            "fault, not the images."
        )
    return numbers, truth
