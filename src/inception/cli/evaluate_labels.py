"""`inception evaluate` of a bundle with several labels an image: as table, JSON, CSV and HTML."""

import io
from pathlib import Path
from typing import Any

from inception.cli.console import print_json, print_table, say
from inception.cli.evaluate_many import Request
from inception.cli.measured import (
    details_of,
    facts_of,
    measure_shown,
    model_name,
    pictures_of,
    write_text,
)
from inception.data.csv_text import CsvWriter
from inception.errors import UsageError
from inception.evaluate.measure_labels import LabelsMeasurement, measure_labels
from inception.runtime.classifier import Classifier
from inception.train.log import METRICS_FILE, read_rows

SHOWN_CLASSES = 50


def run_labels(
    request: Request,
    *,
    threshold: float | None,
    table3: bool,
    as_json: bool,
    report: Path | None,
    per_class: Path | None,
    predictions: Path | None,
) -> None:
    """Measure one bundle with several labels an image. Raises UsageError for what is made for one label."""
    _refuse(request, table3)
    measurement, classifier, seconds = measure_shown(measure_labels, request, threshold=threshold)
    if per_class:
        write_text(per_class, measurement.evaluation.per_class_csv())
    if predictions:
        write_text(predictions, _predictions_csv(measurement))
    if report:
        _write_report(report, measurement, classifier, request)
    if as_json:
        print_json(_as_dict(measurement, seconds))
    else:
        _print(measurement, seconds)


def _refuse(request: Request, table3: bool) -> None:
    wishes = {
        "--table3": table3,
        "--crops": request.crops != ("single",),
        "--limit": request.limit is not None,
        "several bundles": len(request.bundles) > 1,
    }
    for name, wished in wishes.items():
        if wished:
            raise UsageError(f"{name} cannot be had with a bundle of several labels an image")


def _as_dict(measurement: LabelsMeasurement, seconds: float) -> dict[str, Any]:
    return {
        **measurement.evaluation.to_dict(),
        **facts_of(measurement),
        "seconds": seconds,
        "images_per_s": measurement.evaluation.n / seconds,
    }


def _print(measurement: LabelsMeasurement, seconds: float) -> None:
    evaluation = measurement.evaluation
    micro, macro = evaluation.micro, evaluation.macro
    rows = [
        ("images", f"{evaluation.n:,} ({measurement.split})"),
        ("mAP", f"{evaluation.map:.4f}"),
        ("macro F1", f"{macro.f1:.4f}   precision {macro.precision:.4f}, recall {macro.recall:.4f}"),
        ("micro F1", f"{micro.f1:.4f}   precision {micro.precision:.4f}, recall {micro.recall:.4f}"),
        ("all labels right", f"{100 * evaluation.exact:.2f}% of the images"),
        ("wrong labels", f"{100 * evaluation.hamming:.2f}% of the images x labels"),
        ("loss", f"{evaluation.loss:.4f}"),
        ("left out", str(len(measurement.unreadable))),
        ("speed", f"{evaluation.n / seconds:,.1f} images/s with decoding"),
    ]
    print_table((measurement.dataset.name, ""), rows)
    present = [item for item in evaluation.classes if item.support or item.predicted]
    cells = [
        (
            c.label,
            str(c.support),
            str(c.predicted),
            f"{c.threshold:.3f}",
            *(_ratio(value) for value in (c.average_precision, c.precision, c.recall, c.f1)),
        )
        for c in present[:SHOWN_CLASSES]
    ]
    heads = ("label", "images", "given", "threshold", "AP", "precision", "recall", "F1")
    print_table(heads, cells)
    if len(present) > SHOWN_CLASSES:
        say(f"… and {len(present) - SHOWN_CLASSES} more labels: --per-class FILE.csv has them all")


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _predictions_csv(measurement: LabelsMeasurement) -> str:
    evaluation, text = measurement.evaluation, io.StringIO()
    writer = CsvWriter(text)
    probabilities = [f"probability of {label}" for label in evaluation.labels]
    writer.writerow(("path", "labels", "predicted", "all_right", *probabilities, "error"))
    given = evaluation.given

    def named(row: Any) -> str:
        return ";".join(label for label, has in zip(evaluation.labels, row, strict=True) if has)

    for index, path in enumerate(measurement.paths):
        truth, answer = evaluation.truth[index], given[index]
        values = (f"{value:.6f}" for value in evaluation.probabilities[index])
        writer.writerow((path, named(truth), named(answer), int((truth == answer).all()), *values, ""))
    for path, reason in measurement.unreadable.items():
        writer.writerow((path, "", "", "", *([""] * len(evaluation.labels)), reason))
    return text.getvalue()


def _write_report(
    path: Path, measurement: LabelsMeasurement, classifier: Classifier, request: Request
) -> None:
    from inception.evaluate.label_report import write_label_report

    write_label_report(
        path,
        measurement.evaluation,
        title=f"{classifier.bundle.network} · {measurement.dataset.name}",
        images=pictures_of(measurement, classifier.preprocess.bits),
        paths=measurement.paths,
        details=details_of(measurement, classifier, model_name(classifier)),
        history=read_rows(request.bundles[0].parent / METRICS_FILE),
    )
    say(f"report: {path}")
