"""Running a classifier with several labels an image over a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inception.data.loader import Loader
from inception.data.sources import Dataset
from inception.errors import DataError, UsageError
from inception.evaluate.measure import BATCH_SIZE, open_to_measure
from inception.evaluate.multilabel import LabelsEvaluation, evaluate_labels
from inception.runtime.classifier import Classifier


@dataclass(frozen=True)
class LabelsMeasurement:
    """An evaluation and what it was made on; the fields of `measure.Measurement`."""

    evaluation: LabelsEvaluation
    dataset: Dataset
    split: str
    paths: tuple[str, ...]
    unreadable: dict[str, str]


def collect_labels(
    classifier: Classifier, loader: Loader, progress: Callable[[int], None] | None = None
) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
    """Logits float32 N x K and true labels bool N x K of every readable sample, in order.

    In a set with one label an image that label is the only true one. Raises DataError when none is readable.
    """
    logits, truth = [], []
    every = np.eye(len(classifier.labels), dtype=np.bool_)
    for batch in loader.evaluation_batches(classifier.preprocess, BATCH_SIZE):
        logits.append(classifier.logits(batch.images).numpy())
        targets = batch.targets.numpy()
        truth.append(targets > 0.5 if targets.ndim == 2 else every[targets])
        if progress is not None:
            progress(len(targets))
    if not logits:
        raise DataError(f"{loader.dataset.name}: none of its {len(loader)} images can be read")
    return np.concatenate(logits), np.concatenate(truth)


def measure_labels(
    classifier: Classifier,
    data: str | Path | Dataset,
    split: str = "auto",
    *,
    data_root: Path | None = None,
    workers: int = 2,
    strict: bool = False,
    threshold: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LabelsMeasurement:
    """Measure a classifier with several labels an image; labels are matched by name.

    Args:
        classifier: what to measure; it must have thresholds.
        data, split, data_root, workers, strict, progress: as in `evaluate_bundle`.
        threshold: one for all labels, instead of the bundle's.

    Raises DataError when the data set has labels the classifier does not know, or no such split; UsageError
    when the classifier gives one label an image.
    """
    if classifier.thresholds is None:
        raise UsageError("this bundle gives one label an image: measure it with evaluate_bundle")
    dataset, split, samples = open_to_measure(classifier, data, split, data_root, several=True)
    loader = Loader(dataset, samples, workers, strict, cache_bytes=0)
    told = None if progress is None else lambda count: progress(count, len(samples))
    logits, truth = collect_labels(classifier, loader, told)
    thresholds = classifier.thresholds if threshold is None else (threshold,) * len(classifier.labels)
    evaluation = evaluate_labels(logits, truth, classifier.labels, thresholds)
    paths = tuple(sample.path for sample in samples if sample.path not in loader.unreadable)
    return LabelsMeasurement(evaluation, dataset, split, paths, dict(loader.unreadable))
