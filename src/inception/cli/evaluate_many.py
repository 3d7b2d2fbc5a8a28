"""`inception evaluate` beyond one bundle and one look: crops, ensembles, comparisons, the paper's Table 3."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inception.cli.console import print_json, print_table, progress_bar, say
from inception.cli.read_options import say_reading
from inception.data.options import ReadOptions
from inception.data.sources import Dataset, Sample, align_labels
from inception.errors import DataError, UsageError
from inception.evaluate.answers import Answers, collect_answers, evaluate_probabilities
from inception.evaluate.crops import CROPS, Crops
from inception.evaluate.ensemble import average, fit_weights, label_order
from inception.evaluate.measure import Measurement, open_to_measure
from inception.evaluate.metrics import Evaluation, Interval
from inception.evaluate.table3 import Comparison, Row, compare, table3
from inception.runtime.classifier import Classifier
from inception.runtime.loading import load
from inception.weights.manifest import require_one_label

TABLE3_CROPS: tuple[Crops, ...] = ("1", "10", "144")


@dataclass(frozen=True)
class Request:
    """What was asked of `inception evaluate`, apart from where its results go."""

    bundles: tuple[Path, ...]
    data: str
    split: str
    crops: tuple[Crops, ...]
    ensemble: str | None
    limit: int | None
    device: str
    precision: str
    data_root: Path | None
    workers: int
    strict: bool
    options: ReadOptions


def parse_crops(text: str) -> tuple[Crops, ...]:
    """`144` or `1,10,144` as the names of ways of cropping; UsageError for another name."""
    names = [part.strip() for part in text.split(",")]
    known: dict[str, Crops] = {name: name for name in CROPS}
    if wrong := [name for name in names if name not in known]:
        raise UsageError(f"--crops knows {', '.join(CROPS)}, not {wrong[0]!r}")
    return tuple(dict.fromkeys(known[name] for name in names))


def chosen(samples: Sequence[Sample], limit: int | None) -> tuple[Sample, ...]:
    """`limit` samples drawn with a fixed seed, in their order; all of them when that is no limit."""
    if limit is None or limit >= len(samples):
        return tuple(samples)
    places = np.random.default_rng(0).choice(len(samples), limit, replace=False)
    return tuple(samples[place] for place in np.sort(places))


def _opened(classifier: Classifier, request: Request) -> tuple[Dataset, str, tuple[Sample, ...]]:
    return open_to_measure(
        classifier, request.data, request.split, request.data_root, options=request.options
    )


def _open(request: Request) -> tuple[list[Classifier], Dataset, str, tuple[Sample, ...]]:
    classifiers = [load(bundle, request.device, request.precision) for bundle in request.bundles]
    for path, classifier in zip(request.bundles, classifiers, strict=True):
        require_one_label(classifier.thresholds, f"{path}: this measurement")
    first, *others = classifiers
    reference, opened = first, _opened(first, request)
    for classifier, path in zip(others, request.bundles[1:], strict=True):
        label_order(first.labels, classifier.labels, str(path))
        if not _trained_on(reference, opened[0]):
            candidate = _opened(classifier, request)
            # What one of them was trained on decides which images all are measured on.
            if _trained_on(classifier, candidate[0]):
                reference, opened = classifier, candidate
    dataset, split, samples = opened
    say_reading(dataset)
    if reference.labels != first.labels:
        dataset = align_labels(dataset, first.labels)
        samples = dataset.split(split)
    if not dataset.flip_safe and request.crops != ("single",):
        say(f"{dataset.name}: its images change their meaning when they are mirrored, and crops mirror them")
    _warn_of_leaks(classifiers, request.bundles, dataset, reference)
    return classifiers, dataset, split, samples


def _trained_on(classifier: Classifier, dataset: Dataset) -> bool:
    return classifier.bundle.provenance.get("data_fingerprint") == dataset.fingerprint


def _warn_of_leaks(
    classifiers: Sequence[Classifier], bundles: Sequence[Path], dataset: Dataset, reference: Classifier
) -> None:
    """Say so when a bundle held back other images than those that are measured."""

    def cut(classifier: Classifier) -> tuple[Any, Any]:
        recipe = classifier.bundle.provenance.get("recipe", {})
        return recipe.get("val_fraction", 0.1), recipe.get("seed", 0)

    for path, classifier in zip(bundles, classifiers, strict=True):
        known = classifier.bundle.provenance.get("data") == dataset.name
        if dataset.automatic_split and known and cut(classifier) != cut(reference):
            say(f"{path} was trained on other images of {dataset.name}, some of which are measured here")


def _ask(
    request: Request, classifiers: Sequence[Classifier], dataset: Dataset, samples: Sequence[Sample]
) -> Answers:
    with progress_bar("evaluating", len(samples)) as bar:
        answers = collect_answers(
            classifiers,
            request.crops,
            dataset,
            samples,
            names=[str(path) for path in request.bundles],
            workers=request.workers,
            strict=request.strict,
            progress=lambda count: bar.advance(count, "images"),
        )
    for path, reason in list(answers.unreadable.items())[:5]:
        say(f"left out {path}: {reason}")
    return answers


def _weights(
    request: Request,
    classifiers: Sequence[Classifier],
    dataset: Dataset,
    split: str,
) -> tuple[float, ...] | None:
    """Shares of the classifiers by the val split; None for equal ones."""
    if request.ensemble != "validation":
        return None
    samples = dataset.split("val")
    if not samples or split in ("val", "all"):
        raise DataError(
            f"{dataset.name}: --ensemble validation needs a val split beside the measured one ('{split}'); "
            "use --ensemble equal"
        )
    say(f"weighing the bundles on the {len(samples)} images of val")
    answers = _ask(request, classifiers, dataset, samples)
    crops = request.crops[0]
    return fit_weights(
        [answers.probabilities[index, crops] for index in range(len(classifiers))], answers.targets
    )


def measure_one(
    request: Request,
) -> tuple[Measurement[Evaluation], Classifier, tuple[float, ...] | None, float]:
    """One bundle or an ensemble, with crops.

    Returns the measurement, the first classifier, the ensemble's shares, and the seconds it took to answer.
    """
    classifiers, dataset, split, samples = _open(request)
    samples = chosen(samples, request.limit)
    weights = _weights(request, classifiers, dataset, split)
    start = time.perf_counter()
    answers = _ask(request, classifiers, dataset, samples)
    seconds = time.perf_counter() - start
    crops = request.crops[0]
    mean = average([answers.probabilities[index, crops] for index in range(len(classifiers))], weights)
    evaluation = evaluate_probabilities(mean, answers.targets, answers.labels)
    if len(classifiers) == 1:  # already applied, before the softmax
        evaluation = replace(evaluation, temperature=classifiers[0].temperature)
    measurement = Measurement(evaluation, dataset, split, answers.paths, answers.unreadable)
    return measurement, classifiers[0], weights, seconds


def run_comparison(request: Request, as_json: bool) -> None:
    """Measure every bundle alone and compare each with the first: paired intervals and McNemar's test."""
    classifiers, dataset, split, samples = _open(request)
    answers = _ask(request, classifiers, dataset, chosen(samples, request.limit))
    names = [str(path) for path in request.bundles]
    evaluations = [
        evaluate_probabilities(
            answers.probabilities[index, request.crops[0]], answers.targets, answers.labels
        )
        for index in range(len(classifiers))
    ]
    comparisons = [
        compare(evaluations[0], other, (names[0], name))
        for name, other in zip(names[1:], evaluations[1:], strict=True)
    ]
    if as_json:
        print_json(
            {
                "n": evaluations[0].n,
                "data": dataset.name,
                "data_fingerprint": dataset.fingerprint,
                "split": split,
                "crops": request.crops[0],
                "bundles": [
                    {"bundle": name, **_brief(item)} for name, item in zip(names, evaluations, strict=True)
                ],
                "comparisons": [item.to_dict() for item in comparisons],
                "unreadable": answers.unreadable,
            }
        )
        return
    _print_comparison(dataset.name, split, names, evaluations, comparisons)


def _brief(evaluation: Evaluation) -> dict[str, Any]:
    content = evaluation.to_dict()
    names = ("n", "top1", "top5", "loss", "top1_interval", "top5_interval", "balanced_accuracy")
    return {name: content[name] for name in names}


def _print_comparison(
    data: str,
    split: str,
    names: Sequence[str],
    evaluations: Sequence[Evaluation],
    comparisons: Sequence[Comparison],
) -> None:
    rows = [
        (name, f"{100 * item.top1:.2f}%", f"{100 * item.top5:.2f}%", f"{item.loss:.4f}")
        for name, item in zip(names, evaluations, strict=True)
    ]
    print_table((f"{data} ({split}, {evaluations[0].n:,} images)", "top-1", "top-5", "loss"), rows)
    changes = [
        (
            item.second,
            change(item.top1_change, item.top1_interval),
            change(item.top5_change, item.top5_interval),
            f"{item.mcnemar.only_first} : {item.mcnemar.only_second}",
            f"{item.mcnemar.exact_p:.3g}",
        )
        for item in comparisons
    ]
    heads = ("against the first", "top-1, points", "top-5, points", "right alone", "McNemar p")
    print_table(heads, changes)


def change(value: float, interval: Interval) -> str:
    """A difference of fractions in points, with its interval: `+1.23 [-0.46, +2.92]`."""
    return f"{100 * value:+.2f} [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]"


def run_table3(request: Request, as_json: bool) -> None:
    """All models x crops as one table in the form of the paper's Table 3."""
    classifiers, dataset, split, samples = _open(request)
    answers = _ask(request, classifiers, dataset, chosen(samples, request.limit))
    rows = table3(answers, request.crops, range(1, len(classifiers) + 1))
    if as_json:
        print_json(
            {
                "n": len(answers.targets),
                "data": dataset.name,
                "data_fingerprint": dataset.fingerprint,
                "split": split,
                "bundles": [str(path) for path in request.bundles],
                "rows": [row.to_dict() for row in rows],
                "unreadable": answers.unreadable,
            }
        )
        return
    say(f"{dataset.name} ({split}): {len(answers.targets):,} images; 95% bootstrap intervals, changes paired")
    heads = (
        "models",
        "crops",
        "cost",
        "top-5 error",
        "compared to base",
        "top-1 error",
        "compared to base",
        "loss",
        "compared to base",
    )
    print_table(heads, [_cells(row, first=row is rows[0]) for row in rows])


def _cells(row: Row, *, first: bool) -> tuple[str, ...]:
    def error(value: float, interval: Interval) -> str:
        return f"{100 * value:.2f}% [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"

    low, high = row.loss_change_interval
    return (
        str(row.models),
        row.crops,
        "-" if row.cost is None else str(row.cost),
        error(row.top5_error, row.top5_interval),
        "base" if first else change(row.top5_change, row.top5_change_interval),
        error(row.top1_error, row.top1_interval),
        "base" if first else change(row.top1_change, row.top1_change_interval),
        f"{row.loss:.3f}",
        "base" if first else f"{row.loss_change:+.3f} [{low:+.3f}, {high:+.3f}]",
    )
