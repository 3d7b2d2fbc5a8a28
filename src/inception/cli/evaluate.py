"""`inception evaluate`: loss, accuracy and everything per class; as table, JSON, CSV and HTML."""

import datetime
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from inception.cli.console import print_json, print_table, say
from inception.cli.evaluate_labels import run_labels
from inception.cli.evaluate_many import (
    TABLE3_CROPS,
    Request,
    measure_one,
    parse_crops,
    run_comparison,
    run_table3,
)
from inception.cli.measured import (
    details_of,
    facts_of,
    measure_shown,
    model_name,
    pictures_of,
    unwritable,
    write_text,
)
from inception.cli.read_options import read_options
from inception.data.csv_text import CsvWriter
from inception.errors import UsageError
from inception.evaluate.measure import Measurement, evaluate_bundle, trained_on
from inception.evaluate.metrics import Evaluation, Interval
from inception.evaluate.significance import score_intervals
from inception.runtime.classifier import Classifier
from inception.train.log import METRICS_FILE, read_rows
from inception.weights.manifest import answers_several

SHOWN_CLASSES = 50


@click.command(short_help="Measure bundles on labelled images.")
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", default="auto", help="train, val, test, all; auto is test, else val, else all.")
@click.option(
    "--crops",
    help="single (as the bundle says, the default), 2, 6, 1, 10, 12, 144 or dense; "
    "several for --table3: 1,10,144.",
)
@click.option(
    "--ensemble",
    type=click.Choice(("equal", "validation")),
    help="Average the bundles' softmax outputs, equally or weighted by the val split.",
)
@click.option("--table3", is_flag=True, help="Models x crops, in the form of the paper's Table 3.")
@click.option("--limit", type=click.IntRange(1), help="Measure so many images only, drawn with a fixed seed.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Several labels an image: one threshold for all labels instead of the bundle's.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--report", type=click.Path(path_type=Path), help="Write a self-contained HTML page with pictures."
)
@click.option("--per-class", type=click.Path(path_type=Path), help="Write the per-class numbers as CSV.")
@click.option("--predictions", type=click.Path(path_type=Path), help="Write every image's answer as CSV.")
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="float32", show_default=True, help="float32, bfloat16 or auto.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where named sets are kept.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256))
@read_options
@click.option("--strict", is_flag=True, help="Stop at the first unreadable image.")
def evaluate(
    crops: str | None,
    table3: bool,
    threshold: float | None,
    as_json: bool,
    report: Path | None,
    per_class: Path | None,
    predictions: Path | None,
    **asked: Any,
) -> None:
    """Measure each BUNDLE on DATA (a folder, an archive, a CSV or a named set).

    Classes are matched by name. A set with splits is measured on test, else val; a set without is measured
    whole, unless the bundle was trained on it: then only the images training held back are measured.

    Several bundles are compared with the first, or with --ensemble measured as one classifier. A bundle with
    several labels an image is measured by mean average precision, and F1 at its thresholds.
    """
    ways = parse_crops(crops or (",".join(TABLE3_CROPS) if table3 else "single"))
    request = Request(crops=ways, **asked)
    files = {"--report": report, "--per-class": per_class, "--predictions": predictions}
    _check(request, table3, [name for name, path in files.items() if path])
    if answers_several(request.bundles[0]):
        run_labels(
            request,
            threshold=threshold,
            table3=table3,
            as_json=as_json,
            report=report,
            per_class=per_class,
            predictions=predictions,
        )
        return
    if threshold is not None:
        raise UsageError("--threshold is for bundles with several labels an image, and this one gives one")
    if table3:
        run_table3(request, as_json)
        return
    if len(request.bundles) > 1 and request.ensemble is None:
        run_comparison(request, as_json)
        return
    extra: dict[str, Any] = {}
    if ways == ("single",) and request.ensemble is None and request.limit is None:
        measurement, classifier, seconds = measure_shown(evaluate_bundle, request)
    else:
        measurement, classifier, weights, seconds = measure_one(request)
        extra = {"crops": ways[0], "bundles": [str(path) for path in request.bundles], "weights": weights}
    extra["seconds"] = seconds
    _warn_of_training_images(measurement, classifier, request)
    if per_class:
        write_text(per_class, measurement.evaluation.per_class_csv())
    if predictions:
        write_text(predictions, _predictions_csv(measurement))
    intervals = score_intervals(measurement.evaluation.samples, len(measurement.evaluation.labels))
    if report:
        _write_report(report, measurement, classifier, request, intervals)
    if as_json:
        print_json(_as_dict(measurement, intervals, extra))
    else:
        _print(measurement, intervals, extra)


def _warn_of_training_images(
    measurement: Measurement[Evaluation], classifier: Classifier, request: Request
) -> None:
    """Say that all of a set was measured because it is another than the bundle's, perhaps only somewhat."""
    dataset, trained_here = measurement.dataset, "data_fingerprint" in classifier.bundle.provenance
    whole = dataset.automatic_split and measurement.split == "all" and request.split == "auto"
    if trained_here and whole and not trained_on(classifier, dataset):
        say(
            f"{dataset.name} is not the set the bundle was trained on, so all of it is measured; "
            "if images of it were trained on, --split test measures those that training held back"
        )


def _check(request: Request, table3: bool, files: Sequence[str]) -> None:
    """Raise UsageError for options that do not go together."""
    if len(request.crops) > 1 and not table3:
        raise UsageError(f"several ways of cropping ({', '.join(request.crops)}) make a table: add --table3")
    if table3 and request.ensemble:
        raise UsageError("--table3 averages bundles equally and shows every number of them: drop --ensemble")
    many = table3 or (len(request.bundles) > 1 and request.ensemble is None)
    if many and files:
        raise UsageError(f"{files[0]} is of one classifier: name one bundle, or combine them with --ensemble")
    if request.ensemble and len(request.bundles) < 2:
        raise UsageError("--ensemble needs two bundles or more")


def _as_dict(
    measurement: Measurement[Evaluation], intervals: dict[str, Interval], extra: dict[str, Any]
) -> dict[str, Any]:
    return {
        **measurement.evaluation.to_dict(),
        "bootstrap": {name: list(ends) for name, ends in intervals.items()},
        **facts_of(measurement),
        **extra,
        "images_per_s": measurement.evaluation.n / extra["seconds"],
    }


def _print(
    measurement: Measurement[Evaluation], intervals: dict[str, Interval], extra: dict[str, Any]
) -> None:
    evaluation = measurement.evaluation

    def ends(interval: Interval, factor: float, digits: int) -> str:
        return "95% interval " + " to ".join(f"{factor * end:.{digits}f}" for end in interval)

    speed = evaluation.n / extra["seconds"]
    rows = [
        ("images", f"{evaluation.n:,} ({measurement.split})"),
        ("top-1", f"{_percent(evaluation.top1)}   {ends(evaluation.top1_interval, 100, 2)}"),
        ("top-5", f"{_percent(evaluation.top5)}   {ends(evaluation.top5_interval, 100, 2)}"),
        ("loss", f"{evaluation.loss:.4f}   {ends(intervals['loss'], 1, 4)}"),
        (
            "balanced accuracy",
            f"{_percent(evaluation.balanced_accuracy)}   {ends(intervals['balanced_accuracy'], 100, 2)}",
        ),
        ("calibration error", _percent(evaluation.calibration_error)),
        ("left out", str(len(measurement.unreadable))),
        ("speed", f"{speed:,.1f} images/s with decoding"),
    ]
    if extra.get("weights"):
        rows.insert(1, ("weights", ", ".join(f"{share:.3f}" for share in extra["weights"])))
    print_table((measurement.dataset.name, ""), rows)
    present = [item for item in evaluation.classes if item.support]
    cells = [
        (c.label, str(c.support), _percent(c.precision), _percent(c.recall), _percent(c.f1))
        for c in present[:SHOWN_CLASSES]
    ]
    print_table(("class", "images", "precision", "recall", "F1"), cells)
    if len(present) > SHOWN_CLASSES:
        say(f"… and {len(present) - SHOWN_CLASSES} more classes: --per-class FILE.csv has them all")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}%"


def _predictions_csv(measurement: Measurement[Evaluation]) -> str:
    evaluation = measurement.evaluation
    samples, text = evaluation.samples, io.StringIO()
    writer = CsvWriter(text)
    writer.writerow(("path", "label", "predicted", "confidence", "label_probability", "rank", "error"))
    columns = (
        samples.targets,
        samples.predicted,
        samples.confidence,
        samples.target_probability,
        samples.rank,
    )
    for path, target, predicted, confidence, probability, rank in zip(
        measurement.paths, *columns, strict=True
    ):
        labels = (evaluation.labels[target], evaluation.labels[predicted])
        writer.writerow((path, *labels, f"{confidence:.6f}", f"{probability:.6f}", int(rank) + 1, ""))
    for path, reason in measurement.unreadable.items():
        writer.writerow((path, "", "", "", "", "", reason))
    return text.getvalue()


def _write_report(
    path: Path,
    measurement: Measurement[Evaluation],
    classifier: Classifier,
    request: Request,
    intervals: dict[str, Interval],
) -> None:
    from inception.evaluate.report import write_report

    versions = classifier.bundle.provenance.get("versions", {})
    many = len(request.bundles) > 1
    averaged = f"average of {', '.join(path.name for path in request.bundles)}"
    model = averaged if many else model_name(classifier)
    own = {"Crops": request.crops[0], "Temperature": f"{classifier.bundle.temperature:.3f}"}
    details = {
        **details_of(measurement, classifier, model, **own),
        "Versions": ", ".join(f"{k} {v}" for k, v in versions.items()) or "-",
        "Date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    title = f"{classifier.bundle.network} · {measurement.dataset.name}"
    try:
        write_report(
            path,
            measurement.evaluation,
            title=title,
            images=pictures_of(measurement, classifier.preprocess.bits),
            paths=measurement.paths,
            details=details,
            history=read_rows(request.bundles[0].parent / METRICS_FILE) or None,
            intervals=intervals,
        )
    except OSError as error:
        raise unwritable(path, error) from error
    say(f"report: {path}")
