"""What a classifier's answers are worth: pure functions of logits and true classes.

Conventions, the same in every output:
- fractions, never per cent; cross-entropy in nats;
- classes are ranked by logit, largest first, and equal logits by class index, lowest first, so that
  top-1 and top-5 do not depend on chance;
- an undefined ratio (precision of a class never predicted, recall of a class that never occurs) is None;
- macro averages run over the classes that occur, an undefined ratio counting as 0 there.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inception.data.csv_text import CsvWriter
from inception.errors import UsageError
from inception.evaluate.calibration import (
    ReliabilityBin,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    unknown_threshold,
)
from inception.evaluate.scores import IntArray, SampleScores, score_samples

__all__ = [
    "ClassMetrics",
    "ConfusedPair",
    "Evaluation",
    "Interval",
    "MacroMetrics",
    "ReliabilityBin",
    "SampleScores",
    "evaluate_logits",
    "fit_temperature",
    "unknown_threshold",
    "wilson_interval",
]

Interval = tuple[float, float]

_NORMAL_95 = 1.959963984540054
_LISTED_PAIRS = 50
_LISTED_MISTAKES = 100


@dataclass(frozen=True)
class ClassMetrics:
    """One class against all others; ratios lie in [0, 1] or are None where undefined.

    Attributes:
        support: images whose true class this is.
        predicted: images for which this class was the answer.
        precision: right answers among `predicted`.
        recall: right answers among `support` (sensitivity).
        specificity: images of other classes not given this class.
        f1: harmonic mean of precision and recall.
        roc_auc: chance that an image of this class gets a higher probability for it than another image.
    """

    index: int
    label: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    specificity: float | None
    f1: float | None
    roc_auc: float | None


@dataclass(frozen=True)
class MacroMetrics:
    """Means of `ClassMetrics` over the classes that occur; `roc_auc` is None if it is nowhere defined."""

    precision: float
    recall: float
    specificity: float
    f1: float
    roc_auc: float | None


@dataclass(frozen=True)
class ConfusedPair:
    """`count` images of class `true` were called `predicted`: the fraction `share` of that class."""

    true: int
    predicted: int
    count: int
    share: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The measured quality of a classifier on N images of K classes.

    Attributes:
        labels: names of the K classes.
        n: number of images N.
        loss: mean cross-entropy in nats.
        top1: fraction of images whose best answer is right.
        top5: fraction whose true class is among the best min(5, K).
        top1_interval: 95% Wilson score interval of `top1`.
        top5_interval: the same of `top5`.
        balanced_accuracy: mean recall over the classes that occur.
        classes: one entry per class, in class order.
        macro: means over the classes that occur.
        temperature: what the logits were divided by.
        calibration_error: expected calibration error with 15 bins, in [0, 1].
        brier: mean Brier score over all classes, in [0, 2].
        bins: the bins of the reliability diagram.
        confusion: M x 3 int64, the M non-empty cells of the confusion matrix as rows (true, predicted,
            count), ordered; this form stays small for any number of classes.
        samples: the numbers of each image.
    """

    labels: tuple[str, ...]
    n: int
    loss: float
    top1: float
    top5: float
    top1_interval: Interval
    top5_interval: Interval
    balanced_accuracy: float
    classes: tuple[ClassMetrics, ...]
    macro: MacroMetrics
    temperature: float
    calibration_error: float
    brier: float
    bins: tuple[ReliabilityBin, ...]
    confusion: IntArray
    samples: SampleScores

    def confusion_matrix(self, classes: Sequence[int] | None = None) -> IntArray:
        """Counts as a square int64 matrix, rows true and columns predicted.

        Args:
            classes: the classes to show, in this order; all K when None (K x K numbers of memory).
        """
        chosen = np.arange(len(self.labels)) if classes is None else np.asarray(classes, dtype=np.int64)
        place = np.full(len(self.labels), -1, dtype=np.int64)
        place[chosen] = np.arange(len(chosen))
        true, predicted, count = (
            place[self.confusion[:, 0]],
            place[self.confusion[:, 1]],
            self.confusion[:, 2],
        )
        inside = (true >= 0) & (predicted >= 0)
        matrix = np.zeros((len(chosen), len(chosen)), dtype=np.int64)
        matrix[true[inside], predicted[inside]] = count[inside]
        return matrix

    @cached_property
    def mistakes(self) -> IntArray:
        """Indices of all wrongly answered images, int64, the most confident mistake first."""
        wrong = np.flatnonzero(~self.samples.correct)
        order = np.argsort(-self.samples.confidence[wrong], kind="stable")
        return wrong[order].astype(np.int64)

    @cached_property
    def confused_pairs(self) -> tuple[ConfusedPair, ...]:
        """All pairs (true class, other class answered), the most frequent first, then in class order."""
        cells = self.confusion[self.confusion[:, 0] != self.confusion[:, 1]]
        return tuple(
            ConfusedPair(int(true), int(predicted), int(count), int(count) / self.classes[true].support)
            for true, predicted, count in cells[np.argsort(-cells[:, 2], kind="stable")]
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the per-image arrays, ready for JSON (no NaN); fractions, not per cent.

        `confusion` is the list of non-empty cells [true, predicted, count]; `confused_pairs` and
        `mistakes` are cut to the first 50 and 100.
        """
        samples = self.samples
        return {
            "n": self.n,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "top1_interval": list(self.top1_interval),
            "top5_interval": list(self.top5_interval),
            "balanced_accuracy": self.balanced_accuracy,
            "macro": asdict(self.macro),
            "calibration": {
                "temperature": self.temperature,
                "expected_calibration_error": self.calibration_error,
                "brier": self.brier,
                "bins": [asdict(item) for item in self.bins],
            },
            "classes": [asdict(item) for item in self.classes],
            "confusion": self.confusion.tolist(),
            "confused_pairs": [asdict(pair) for pair in self.confused_pairs[:_LISTED_PAIRS]],
            "mistakes": [
                {
                    "index": int(index),
                    "true": int(samples.targets[index]),
                    "predicted": int(samples.predicted[index]),
                    "confidence": float(samples.confidence[index]),
                    "true_probability": float(samples.target_probability[index]),
                }
                for index in self.mistakes[:_LISTED_MISTAKES]
            ],
        }

    def per_class_csv(self) -> str:
        """The per-class table as CSV text with a header; an undefined ratio is an empty field."""
        stream = io.StringIO()
        writer = CsvWriter(stream)
        writer.writerow(ClassMetrics.__dataclass_fields__)
        writer.writerows(asdict(item).values() for item in self.classes)
        return stream.getvalue()


def evaluate_logits(
    logits: NDArray[np.floating],
    targets: NDArray[np.integer],
    labels: Sequence[str],
    *,
    temperature: float = 1.0,
) -> Evaluation:
    """Measure a classifier from its logits.

    Args:
        logits: N x K, float32 or float64, finite.
        targets: N true classes, integers in 0 … K-1. Classes may be absent.
        labels: K names.
        temperature: divides the logits before the softmax; changes the loss and the calibration, never
            which answer is right. More than 0.

    Raises:
        UsageError: shapes, labels, targets or temperature that do not fit.
        DataError: there is no image.
        InceptionError: a logit is infinite or not a number.
    """
    samples = score_samples(logits, targets, temperature=temperature)
    logits = np.asarray(logits)
    if len(labels) != logits.shape[1]:
        raise UsageError(f"The model has {logits.shape[1]} outputs but {len(labels)} labels were given.")
    n, classes = logits.shape
    confusion = _confusion_cells(samples, classes)
    per_class = _class_metrics(confusion, n, labels, _roc_auc(logits, samples, temperature))
    present = [item for item in per_class if item.support]
    top1, top5 = int((samples.rank == 0).sum()), int((samples.rank < min(5, classes)).sum())
    bins = reliability_bins(samples)
    macro = _macro(present)
    return Evaluation(
        labels=tuple(labels),
        n=n,
        loss=float(samples.loss.mean()),
        top1=top1 / n,
        top5=top5 / n,
        top1_interval=wilson_interval(top1, n),
        top5_interval=wilson_interval(top5, n),
        balanced_accuracy=macro.recall,
        classes=per_class,
        macro=macro,
        temperature=temperature,
        calibration_error=expected_calibration_error(bins),
        brier=float(samples.brier.mean()),
        bins=bins,
        confusion=confusion,
        samples=samples,
    )


def wilson_interval(successes: int, trials: int) -> Interval:
    """95% interval of a fraction, by Wilson's score (1927): inside [0, 1] and sound near the ends.

    Raises:
        UsageError: no trials, or more successes than trials.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise UsageError(f"needs 0 <= successes <= trials and a trial, got {successes} of {trials}")
    fraction, square = successes / trials, _NORMAL_95**2
    center = (fraction + square / (2 * trials)) / (1 + square / trials)
    spread = math.sqrt(fraction * (1 - fraction) / trials + square / (4 * trials**2))
    half = _NORMAL_95 * spread / (1 + square / trials)
    # Rounding must not push an end past the fraction itself.
    return (min(max(center - half, 0.0), fraction), max(min(center + half, 1.0), fraction))


def _confusion_cells(samples: SampleScores, classes: int) -> IntArray:
    codes, counts = np.unique(samples.targets * classes + samples.predicted, return_counts=True)
    return np.stack([codes // classes, codes % classes, counts], axis=1).astype(np.int64)


def _class_metrics(
    confusion: IntArray, n: int, labels: Sequence[str], roc_auc: dict[int, float]
) -> tuple[ClassMetrics, ...]:
    true, predicted, count = confusion.T
    classes = len(labels)
    hits = np.bincount(true, weights=count * (true == predicted), minlength=classes).astype(np.int64)
    support = np.bincount(true, weights=count, minlength=classes).astype(np.int64)
    answered = np.bincount(predicted, weights=count, minlength=classes).astype(np.int64)
    return tuple(
        ClassMetrics(
            index=index,
            label=label,
            support=int(support[index]),
            predicted=int(answered[index]),
            precision=_ratio(hits[index], answered[index]),
            recall=_ratio(hits[index], support[index]),
            specificity=_ratio(n - support[index] - answered[index] + hits[index], n - support[index]),
            f1=_ratio(2 * hits[index], support[index] + answered[index]),
            roc_auc=roc_auc.get(index),
        )
        for index, label in enumerate(labels)
    )


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _macro(present: list[ClassMetrics]) -> MacroMetrics:
    def mean(name: str) -> float:
        return sum(getattr(item, name) or 0.0 for item in present) / len(present)

    defined = [item.roc_auc for item in present if item.roc_auc is not None]
    return MacroMetrics(
        precision=mean("precision"),
        recall=mean("recall"),
        specificity=mean("specificity"),
        f1=mean("f1"),
        roc_auc=sum(defined) / len(defined) if defined else None,
    )


def _roc_auc(logits: NDArray[np.floating], samples: SampleScores, temperature: float) -> dict[int, float]:
    """One-versus-rest area under the ROC curve of each class that occurs beside others.

    The area is the Mann-Whitney statistic; equal scores count half. Log-probabilities order images as
    probabilities do, without the ties that rounding to 1.0 would make.
    """
    support = np.bincount(samples.targets, minlength=logits.shape[1])
    areas = {}
    for index in np.flatnonzero((support > 0) & (support < len(logits))):
        column = logits[:, index].astype(np.float64) / temperature - samples.log_normalizer
        _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
        middle_rank = np.cumsum(counts) - (counts - 1) / 2
        positive = int(support[index])
        above = middle_rank[place[samples.targets == index]].sum() - positive * (positive + 1) / 2
        areas[int(index)] = float(above / (positive * (len(column) - positive)))
    return areas
