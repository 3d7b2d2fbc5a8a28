"""Running a classifier with several labels an image over a data set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inception.data.loader import Loader
from inception.data.options import ReadOptions
from inception.data.sources import Dataset
from inception.errors import UsageError
from inception.evaluate.measure import Measurement, collect_logits, open_to_measure
from inception.evaluate.multilabel import LabelsEvaluation, evaluate_labels
from inception.runtime.classifier import Classifier

LabelsMeasurement = Measurement[LabelsEvaluation]


def collect_labels(
    classifier: Classifier, loader: Loader, progress: Callable[[int], None] | None = None
) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
    """Logits float32 N x K and true labels bool N x K of every readable sample, in order.

    In a set with one label an image that label is the only true one. Raises DataError when none is readable.
    """
    logits, targets = collect_logits(classifier, loader, progress)
    if targets.ndim == 2:
        return logits, targets > np.float32(0.5)
    return logits, np.eye(len(classifier.labels), dtype=np.bool_)[targets]


def measure_labels(
    classifier: Classifier,
    data: str | Path | Dataset,
    split: str = "auto",
    *,
    options: ReadOptions | None = None,
    data_root: Path | None = None,
    workers: int = 2,
    strict: bool = False,
    threshold: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LabelsMeasurement:
    """Measure a classifier with several labels an image; labels are matched by name.

    Args:
        classifier: what to measure; it must have thresholds.
        data, split, options, data_root, workers, strict, progress: as in `evaluate_bundle`.
        threshold: one for all labels, instead of the bundle's.

    Raises DataError when the data set has labels the classifier does not know, or no such split; UsageError
    when the classifier gives one label an image.
    """
    if classifier.thresholds is None:
        raise UsageError("this bundle gives one label an image: measure it with evaluate_bundle")
    dataset, split, samples = open_to_measure(
        classifier, data, split, data_root, several=True, options=options
    )
    loader = Loader(dataset, samples, workers, strict, cache_bytes=0)
    told = None if progress is None else lambda count: progress(count, len(samples))
    logits, truth = collect_labels(classifier, loader, told)
    thresholds = classifier.thresholds if threshold is None else (threshold,) * len(classifier.labels)
    evaluation = evaluate_labels(logits, truth, classifier.labels, thresholds)
    paths = tuple(sample.path for sample in samples if sample.path not in loader.unreadable)
    return LabelsMeasurement(evaluation, dataset, split, paths, dict(loader.unreadable))
