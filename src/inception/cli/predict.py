"""`inception predict`: labels and probabilities for files, folders, archives or a list on standard input."""

import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import click

from inception.cli.console import csv_output, print_json, print_table, progress_bar, say
from inception.errors import UsageError
from inception.runtime.answering import Prediction
from inception.runtime.batch import Job, answer_here, run_job
from inception.runtime.inputs import Item, expand_inputs
from inception.runtime.loading import load
from inception.runtime.tables import score_cells, score_heading


@click.command(short_help="Ask a bundle about images.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True)
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 1000), help="Answers an image.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: path, labels and probabilities, error.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Several labels an image: give those of at least this probability, not the bundle's thresholds.",
)
@click.option("--unknown", is_flag=True, help="Answer `unknown` below the bundle's calibrated threshold.")
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="float32", show_default=True, help="float32, bfloat16 or auto.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1, 4096))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write FILE.jsonl, .csv or .parquet; the same command again goes on where it was stopped.",
)
@click.option("--engine", default="local", show_default=True, type=click.Choice(("local", "ray")))
@click.option(
    "--workers", type=click.IntRange(1, 65536), help="With --engine ray: copies of the bundle at work."
)
def predict(
    bundle: Path,
    paths: tuple[str, ...],
    top: int,
    as_json: bool,
    as_csv: bool,
    threshold: float | None,
    unknown: bool,
    device: str,
    precision: str,
    batch_size: int,
    output: Path | None,
    engine: str,
    workers: int | None,
) -> int:
    """Answer for every image in PATHS: files, folders, shards, .zip or .tar archives, .parquet files, or `-`
    for a list of paths on standard input, one a line.

    A bundle trained on several labels an image answers with all labels that reach their thresholds, and there
    may be none. A bad image is reported in its row (with --output in FILE.errors) and does not stop the rest.
    Exit code 1 when any image failed.
    """
    if as_json + as_csv + (output is not None) > 1:
        raise click.UsageError("--json, --csv and --output exclude each other")
    if output is None and (engine != "local" or workers is not None):
        raise click.UsageError("--engine and --workers are for many images: name a file with --output")
    if output is not None and threshold is not None:
        raise click.UsageError("--threshold changes what is printed: drop it or --output")
    if output is not None:
        items = tuple(_some(expand_inputs(paths, sys.stdin)))
        job = Job(str(bundle), items, output, top, unknown, batch_size, device, precision)
        return _answer_to_file(job, engine, workers)
    classifier = load(bundle, device, precision)
    if threshold is not None:
        if classifier.thresholds is None:
            raise UsageError(
                "--threshold is for bundles with several labels an image, and this one gives one"
            )
        classifier.thresholds = (threshold,) * len(classifier.labels)
    found = _some(expand_inputs(paths, sys.stdin))
    answers = classifier.predict_stream(found, top=top, unknown=unknown, batch_size=batch_size)
    if as_json:
        return _finish(_print_json(answers))
    if classifier.thresholds is not None:
        return _finish(_print_labels_csv(answers) if as_csv else _print_labels(answers))
    if as_csv:
        return _finish(_print_csv(answers, min(top, len(classifier.labels))))
    return _finish(_print_rows(answers))


def _answer_to_file(job: Job, engine: str, workers: int | None) -> int:
    if engine == "local" and workers is not None:
        raise click.UsageError("--workers needs --engine ray; one machine is kept busy without")
    with progress_bar("answering", len(job.items)) as bar:

        def progress(part: int, images: int) -> None:
            bar.advance(images, "images")

        if engine == "ray":
            from inception.runtime.ray_engine import RayEngine

            answered = run_job(job, RayEngine(workers or 1), progress)
        else:
            answered = run_job(job, answer_here, progress)
    if answered.kept:
        say(f"{answered.kept} of {job.parts} parts were there already")
    rate = f", {answered.computed / answered.seconds:,.1f} images/s" if answered.computed else ""
    say(f"{answered.images - answered.failed:,} images in {answered.output}{rate}")
    if answered.errors is not None:
        say(f"{answered.failed:,} without an answer in {answered.errors}")
    return _finish(answered.failed)


def _some(items: Iterator[Item]) -> Iterator[Item]:
    first = next(items, None)
    if first is None:
        raise UsageError("standard input names no images: give one path a line")
    return chain([first], items)


def _finish(failed: int) -> int:
    return 1 if failed else 0


def _warn(answer: Prediction) -> None:
    if answer.warning is not None:
        say(f"{answer.path}: {answer.warning}")


def _print_json(answers: Iterable[Prediction]) -> int:
    failed = 0
    for answer in answers:
        _warn(answer)
        print_json(answer.to_dict())
        failed += answer.error is not None
    return failed


def _print_csv(answers: Iterable[Prediction], top: int) -> int:
    failed = 0
    writer = csv_output()
    writer.writerow(("path", *score_heading(top), "error"))
    for answer in answers:
        _warn(answer)
        writer.writerow((answer.path, *score_cells(answer.to_dict(), top), answer.error or ""))
        failed += answer.error is not None
    return failed


def _print_rows(answers: Iterable[Prediction]) -> int:
    collected = list(answers)
    print_table(("image", "answer", "probability", "then"), list(_table_rows(collected)))
    return sum(answer.error is not None for answer in collected)


def _table_rows(answers: Iterable[Prediction]) -> Iterator[tuple[str, str, str, str]]:
    for answer in answers:
        _warn(answer)
        if answer.error is not None:
            yield (answer.path or "", f"error: {answer.error}", "", "")
            continue
        best, *others = answer.top
        then = ", ".join(f"{score.label} {100 * score.probability:.1f}%" for score in others)
        yield (answer.path or "", best.label, f"{100 * best.probability:.1f}%", then)


def _print_labels_csv(answers: Iterable[Prediction]) -> int:
    failed = 0
    writer = csv_output()
    writer.writerow(("path", "labels", "probabilities", "error"))
    for answer in answers:
        _warn(answer)
        scores = answer.labels or ()
        probabilities = ";".join(f"{score.probability:.6f}" for score in scores)
        writer.writerow(
            (answer.path, ";".join(score.label for score in scores), probabilities, answer.error or "")
        )
        failed += answer.error is not None
    return failed


def _print_labels(answers: Iterable[Prediction]) -> int:
    rows, failed = [], 0
    for answer in answers:
        _warn(answer)
        scores = answer.labels or ()
        named = ", ".join(f"{score.label} {100 * score.probability:.1f}%" for score in scores)
        below = [score for score in answer.top if score not in scores]
        next_best = f"{below[0].label} {100 * below[0].probability:.1f}%" if below else ""
        text = named or "none" if answer.error is None else f"error: {answer.error}"
        rows.append((answer.path or "", text, next_best))
        failed += answer.error is not None
    print_table(("image", "labels", "best below its threshold"), rows)
    return failed
