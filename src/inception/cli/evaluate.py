"""`inception evaluate`: loss, accuracy and everything per class; as table, JSON, CSV and HTML."""

import csv
import datetime
import io
from pathlib import Path
from typing import Any

import click

from inception.cli.console import print_json, print_table, progress_bar, say
from inception.errors import UsageError
from inception.evaluate.measure import Measurement, evaluate_bundle
from inception.files import atomic_write_text
from inception.runtime.classifier import Classifier, load
from inception.train.log import METRICS_FILE, read_rows

SHOWN_CLASSES = 50


@click.command(short_help="Measure a bundle on labelled images.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", default="auto", help="train, val, test, all; auto is test, else val, else all.")
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
@click.option("--strict", is_flag=True, help="Stop at the first unreadable image.")
def evaluate(
    bundle: Path,
    data: str,
    split: str,
    as_json: bool,
    report: Path | None,
    per_class: Path | None,
    predictions: Path | None,
    device: str,
    precision: str,
    data_root: Path | None,
    workers: int,
    strict: bool,
) -> None:
    """Measure BUNDLE on DATA (a folder, an archive, a CSV or a named set).

    Classes are matched by name. A set with splits is measured on test, else val; a set without is measured
    whole, unless the bundle was trained on it: then only the images training held back are measured.
    """
    classifier = load(bundle, device, precision)
    with progress_bar("evaluating", None) as bar:

        def progress(count: int, total: int) -> None:
            bar.set_total(total)
            bar.advance(count, "images")

        measurement = evaluate_bundle(
            classifier,
            data,
            split,
            data_root=data_root,
            workers=workers,
            strict=strict,
            progress=progress,
        )
    for path, reason in list(measurement.unreadable.items())[:5]:
        say(f"left out {path}: {reason}")
    if per_class:
        _write(per_class, measurement.evaluation.per_class_csv())
    if predictions:
        _write(predictions, _predictions_csv(measurement))
    if report:
        _write_report(report, measurement, classifier, bundle)
    if as_json:
        print_json(_as_dict(measurement))
    else:
        _print(measurement)


def _as_dict(measurement: Measurement) -> dict[str, Any]:
    return {
        **measurement.evaluation.to_dict(),
        "data": measurement.dataset.name,
        "data_fingerprint": measurement.dataset.fingerprint,
        "split": measurement.split,
        "unreadable": measurement.unreadable,
    }


def _print(measurement: Measurement) -> None:
    evaluation = measurement.evaluation
    low, high = evaluation.top1_interval
    rows = [
        ("images", f"{evaluation.n:,} ({measurement.split})"),
        ("top-1", f"{100 * evaluation.top1:.2f}%   95% interval {100 * low:.2f} to {100 * high:.2f}"),
        ("top-5", f"{100 * evaluation.top5:.2f}%"),
        ("loss", f"{evaluation.loss:.4f}"),
        ("balanced accuracy", _percent(evaluation.balanced_accuracy)),
        ("calibration error", _percent(evaluation.calibration_error)),
        ("left out", str(len(measurement.unreadable))),
    ]
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


def _predictions_csv(measurement: Measurement) -> str:
    evaluation = measurement.evaluation
    samples, text = evaluation.samples, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
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


def _write_report(path: Path, measurement: Measurement, classifier: Classifier, bundle: Path) -> None:
    from inception.data.decode import decode_image
    from inception.evaluate.report import thumbnail, write_report

    samples = {sample.path: sample for sample in measurement.dataset.split(measurement.split)}

    def picture(index: int) -> bytes:
        return thumbnail(decode_image(measurement.dataset.read(samples[measurement.paths[index]])))

    preprocess, provenance = classifier.preprocess, classifier.bundle.provenance
    details = {
        "Model": " ".join(
            [classifier.bundle.network, *(f"{k}={v}" for k, v in classifier.bundle.arguments.items())]
        ),
        "Data": f"{measurement.dataset.name} ({measurement.dataset.fingerprint[:12]})",
        "Split": measurement.split,
        "Preprocessing": f"{preprocess.height}x{preprocess.width} {preprocess.color}, {preprocess.resize}, "
        f"{preprocess.interpolation}",
        "Temperature": f"{classifier.bundle.temperature:.3f}",
        "Device": f"{classifier.device.type}, {classifier.precision}",
        "Skipped images": str(len(measurement.unreadable)),
        "Versions": ", ".join(f"{k} {v}" for k, v in provenance.get("versions", {}).items()) or "-",
        "Date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    title = f"{classifier.bundle.network} · {measurement.dataset.name}"
    try:
        write_report(
            path,
            measurement.evaluation,
            title=title,
            images=picture,
            paths=measurement.paths,
            details=details,
            history=read_rows(bundle.parent / METRICS_FILE) or None,
        )
    except OSError as error:
        raise _unwritable(path, error) from error
    say(f"report: {path}")


def _write(path: Path, text: str) -> None:
    try:
        atomic_write_text(path, text)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write {path}: {error.strerror or error}")
