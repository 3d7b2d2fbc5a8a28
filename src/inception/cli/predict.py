"""`inception predict`: labels and probabilities for files, folders, archives or a list on standard input."""

import csv
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import click

from inception.cli.console import print_json, print_table
from inception.errors import UsageError
from inception.runtime.answering import Prediction
from inception.runtime.inputs import Item, expand_inputs
from inception.runtime.loading import load


@click.command(short_help="Ask a bundle about images.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True)
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 1000), help="Answers an image.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option(
    "--csv", "as_csv", is_flag=True, help="Print CSV: path, label and probability of each answer, error."
)
@click.option("--unknown", is_flag=True, help="Answer `unknown` below the bundle's calibrated threshold.")
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="float32", show_default=True, help="float32, bfloat16 or auto.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1, 4096))
def predict(
    bundle: Path,
    paths: tuple[str, ...],
    top: int,
    as_json: bool,
    as_csv: bool,
    unknown: bool,
    device: str,
    precision: str,
    batch_size: int,
) -> int:
    """Answer for every image in PATHS: files, folders, .zip or .tar archives, or `-` for a list of paths on
    standard input, one a line.

    A bad image is reported in its row and does not stop the rest. Exit code 1 when any image failed.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    classifier = load(bundle, device, precision)
    items = _some(expand_inputs(paths, sys.stdin))
    answers = classifier.predict_stream(items, top=top, unknown=unknown, batch_size=batch_size)
    if as_json:
        return _finish(_print_json(answers))
    if as_csv:
        return _finish(_print_csv(answers, min(top, len(classifier.labels))))
    return _finish(_print_rows(answers))


def _some(items: Iterator[Item]) -> Iterator[Item]:
    first = next(items, None)
    if first is None:
        raise UsageError("standard input names no images: give one path a line")
    return chain([first], items)


def _finish(failed: int) -> int:
    return 1 if failed else 0


def _print_json(answers: Iterable[Prediction]) -> int:
    failed = 0
    for answer in answers:
        print_json(answer.to_dict())
        failed += answer.error is not None
    return failed


def _print_csv(answers: Iterable[Prediction], top: int) -> int:
    failed = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    pairs = [name for rank in range(1, top + 1) for name in (f"label{rank}", f"probability{rank}")]
    writer.writerow(("path", *pairs, "error"))
    for answer in answers:
        cells = [cell for score in answer.top for cell in (score.label, f"{score.probability:.6f}")][
            : 2 * top
        ]
        cells += [""] * (2 * top - len(cells))
        writer.writerow((answer.path, *cells, answer.error or ""))
        failed += answer.error is not None
    return failed


def _print_rows(answers: Iterable[Prediction]) -> int:
    collected = list(answers)
    print_table(("image", "answer", "probability", "then"), list(_table_rows(collected)))
    return sum(answer.error is not None for answer in collected)


def _table_rows(answers: Iterable[Prediction]) -> Iterator[tuple[str, str, str, str]]:
    for answer in answers:
        if answer.error is not None:
            yield (answer.path or "", f"error: {answer.error}", "", "")
            continue
        best, *others = answer.top
        then = ", ".join(f"{score.label} {100 * score.probability:.1f}%" for score in others)
        yield (answer.path or "", best.label, f"{100 * best.probability:.1f}%", then)
