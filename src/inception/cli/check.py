"""`inception check`: what is wrong with a data set, before training on it."""

from pathlib import Path

import click

from inception.cli.console import print_json, print_table, progress_bar, say
from inception.cli.read_options import read_options
from inception.data.check import CheckReport, Group, check_dataset
from inception.data.jpeg_data import MISSING
from inception.data.options import ReadOptions

SHOWN = 10
BITS_HELP = "Depth of the values of grey images stored in 16 bits, such as 12."


@click.command(short_help="Find what is wrong with a data set.")
@click.argument("data")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--min-size", default=32, show_default=True, help="Sides below this many pixels are tiny.")
@click.option("--bits", type=click.IntRange(8, 16), help=BITS_HELP)
@click.option("--data-root", type=click.Path(path_type=Path), help="Where named sets are kept.")
@click.option("--val-fraction", default=0.1, show_default=True, help="As in train.")
@click.option("--seed", default=0, show_default=True, help="As in train.")
@read_options
@click.option("--workers", type=click.IntRange(1, 256), help="Decoding threads; default one a CPU.")
def check(
    data: str,
    as_json: bool,
    min_size: int,
    bits: int | None,
    data_root: Path | None,
    val_fraction: float,
    seed: int,
    workers: int | None,
    options: ReadOptions,
) -> int:
    """Decode every image of DATA and report unreadable, truncated, duplicate, leaking, tiny, misnamed and
    stray files, and the balance of classes. Exit code 1 when something should be put right.
    """
    with progress_bar("checking", None) as bar:

        def progress(done: int, total: int) -> None:
            bar.set_total(total)
            bar.advance(1, "images")

        report = check_dataset(
            data,
            options=options,
            data_root=data_root,
            val_fraction=val_fraction,
            seed=seed,
            min_size=min_size,
            bits=bits or 0,
            workers=workers,
            progress=progress,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    return 0 if report.ok else 1


def _print(report: CheckReport) -> None:
    for note in report.notes:
        say(note)
    splits = list(report.balance)
    rows = [
        (label, *(str(report.balance[split].get(label, 0)) for split in splits)) for label in report.labels
    ]
    print_table(("class", *splits), rows[:100], title=f"{report.source}: {report.images:,} images")
    if len(rows) > 100:
        say(f"… and {len(rows) - 100} more classes")
    findings = [(item.path, item.kind, item.message) for item in report.unreadable]
    findings += [(path, "incomplete", MISSING) for path in report.incomplete]
    findings += [(_paths(group), "leak", "the same image in two splits") for group in report.leakage]
    findings += [(_paths(group), "conflict", "the same image with two labels") for group in report.conflicts]
    findings += [(_paths(group), "duplicate", "the same image twice") for group in report.duplicates]
    findings += [(_paths(group), "near leak", "much alike in two splits") for group in report.near_leakage]
    findings += [
        (item.path, "misnamed", f"is {item.found}, not {item.promised}") for item in report.mislabelled
    ]
    findings += [(item.path, "tiny", f"{item.width} x {item.height} pixels") for item in report.tiny]
    findings += [(path, "stray", "no part of the data set") for path in report.strays]
    findings += [(path, "left out", reason) for reason, paths in report.left_out.items() for path in paths]
    if findings:
        print_table(("file", "finding", ""), _shortened(findings))
    for problem in report.problems or ["Nothing to put right."]:
        say(problem)


def _shortened(findings: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """At most SHOWN rows of each kind."""
    shown: list[tuple[str, str, str]] = []
    for kind in dict.fromkeys(kind for _, kind, _ in findings):
        rows = [row for row in findings if row[1] == kind]
        shown += rows[:SHOWN]
        if len(rows) > SHOWN:
            shown.append((f"… and {len(rows) - SHOWN} more (--json lists all)", kind, ""))
    return shown


def _paths(group: Group) -> str:
    splits = len({member.split for member in group}) > 1
    return " = ".join(f"{member.path} ({member.split})" if splits else member.path for member in group)
