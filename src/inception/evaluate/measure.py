"""Running a classifier over a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from inception.data.loader import Loader
from inception.data.options import ReadOptions
from inception.data.sources import Dataset, Sample, align_labels, open_dataset
from inception.errors import BundleError, DataError
from inception.evaluate.answers import collect_answers, evaluate_probabilities
from inception.evaluate.crops import Crops
from inception.evaluate.metrics import Evaluation, evaluate_logits
from inception.runtime.classifier import Classifier
from inception.weights.manifest import require_one_label

BATCH_SIZE = 64
Logits = NDArray[np.float32]
Targets = NDArray[Any]
Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Measurement(Generic[Measured]):
    """An evaluation and what it was made on.

    Attributes:
        evaluation: all metrics.
        dataset: the data set, its targets aligned to the classifier's labels.
        split: which split was measured.
        paths: path of each measured image, in the evaluation's order.
        unreadable: images left out, and why.
    """

    evaluation: Measured
    dataset: Dataset
    split: str
    paths: tuple[str, ...]
    unreadable: dict[str, str]


def collect_logits(
    classifier: Classifier, loader: Loader, progress: Callable[[int], None] | None = None
) -> tuple[Logits, Targets]:
    """Logits float32 N x K and targets of every readable sample, in order.

    Targets are int64 N; of a set with several labels an image, float32 N x K of 0 and 1.

    `progress` is told the number of images after each batch. Raises DataError when none is readable.
    """
    logits, targets = [], []
    for batch in loader.evaluation_batches(classifier.preprocess, BATCH_SIZE):
        logits.append(classifier.logits(batch.images).numpy())
        targets.append(batch.targets.numpy())
        if progress is not None:
            progress(len(batch.targets))
    if not logits:
        raise DataError(f"{loader.dataset.name}: none of its {len(loader)} images can be read")
    return np.concatenate(logits), np.concatenate(targets)


def evaluate_bundle(
    classifier: Classifier,
    data: str | Path | Dataset,
    split: str = "auto",
    *,
    options: ReadOptions | None = None,
    data_root: Path | None = None,
    workers: int = 2,
    strict: bool = False,
    crops: Crops = "single",
    progress: Callable[[int, int], None] | None = None,
) -> Measurement[Evaluation]:
    """Measure a classifier on a data set; classes are matched by name, not by position.

    Args:
        classifier: what to measure.
        data: a source that `open_dataset` understands, or an open data set.
        split: `train`, `val`, `test`, `all`, or `auto`: test, else val, else all.
        options: how the data is read.
        data_root: where named sets are kept; default as in `open_dataset`.
        workers: decoding threads.
        strict: raise on an unreadable image instead of leaving it out.
        crops: one of `CROPS`; the softmax is averaged over them.
        progress: told (images in this batch, images in all).

    Raises DataError when the data set has classes the classifier does not know, or no such split.
    """
    dataset, split, samples = open_to_measure(classifier, data, split, data_root, options=options)
    told = None if progress is None else lambda count: progress(count, len(samples))
    if crops != "single":
        answers = collect_answers(
            [classifier], [crops], dataset, samples, workers=workers, strict=strict, progress=told
        )
        evaluation = evaluate_probabilities(answers.probabilities[0, crops], answers.targets, answers.labels)
        return Measurement(evaluation, dataset, split, answers.paths, answers.unreadable)
    loader = Loader(dataset, samples, workers, strict, cache_bytes=0)
    logits, targets = collect_logits(classifier, loader, told)
    evaluation = evaluate_logits(
        logits, targets, classifier.labels, temperature=classifier.bundle.temperature
    )
    paths = tuple(sample.path for sample in samples if sample.path not in loader.unreadable)
    return Measurement(evaluation, dataset, split, paths, dict(loader.unreadable))


def open_to_measure(
    classifier: Classifier,
    data: str | Path | Dataset,
    split: str = "auto",
    data_root: Path | None = None,
    *,
    several: bool = False,
    options: ReadOptions | None = None,
) -> tuple[Dataset, str, tuple[Sample, ...]]:
    """The data set with targets aligned to the classifier's labels, the split's name, and its samples.

    Raises DataError when the data set has classes the classifier does not know, or no such split; UsageError
    when the classifier answers several labels an image, unless `several` says that this is expected.
    """
    if not several:
        require_one_label(classifier.thresholds, "this measurement")
    dataset = data if isinstance(data, Dataset) else _open_as_trained(data, classifier, data_root, options)
    if split == "auto":
        split = _split_to_measure(dataset, classifier)
    if dataset.multilabel and not several:
        raise DataError(f"{dataset.name} has several labels an image, and the bundle answers one")
    dataset = align_labels(dataset, classifier.labels)
    samples = dataset.split(split)
    if not samples:
        raise DataError(f"{dataset.name} has no split '{split}'; it has {', '.join(dataset.splits)}")
    return dataset, split, samples


def _open_as_trained(
    data: str | Path, classifier: Classifier, data_root: Path | None, options: ReadOptions | None
) -> Dataset:
    """Open `data` with the automatic split that training on it would have made."""
    recipe = classifier.bundle.provenance.get("recipe", {})
    fraction, seed = recipe.get("val_fraction", 0.1), recipe.get("seed", 0)
    if not (isinstance(fraction, float | int) and 0 <= fraction < 1 and isinstance(seed, int)):
        raise BundleError(
            f"the bundle's recipe has an impossible val_fraction ({fraction!r:.60}) or seed ({seed!r:.60})"
        )
    dataset = open_dataset(
        data, options=options, data_root=data_root, val_fraction=fraction, seed=seed, measuring=True
    )
    dataset.require_most(options is not None and options.allow_left_out)
    return dataset


def _split_to_measure(dataset: Dataset, classifier: Classifier) -> str:
    """`test`, else `val`, else all; a set without splits of its own is measured whole.

    Unless the classifier was trained on that very set: then only what training held back is measured.
    """
    if dataset.automatic_split and not trained_on(classifier, dataset):
        return "all"
    return dataset.evaluation_split()


def trained_on(classifier: Classifier, dataset: Dataset) -> bool:
    """Whether `dataset` is, to the last file, what the classifier was trained on."""
    return bool(classifier.bundle.provenance.get("data_fingerprint") == dataset.fingerprint)
