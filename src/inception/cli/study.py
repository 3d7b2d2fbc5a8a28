"""`inception study`: the claims of the paper and the lecture, checked one by one."""

import time
from pathlib import Path

import click

from inception.cli.console import print_json, print_table, say
from inception.errors import InceptionError
from inception.files import atomic_write_text
from inception.study.catalog import EXPERIMENTS, find_experiment
from inception.study.charts import chart_svg
from inception.study.experiment import Cell, Experiment, Options, Table
from inception.study.page import write_page
from inception.study.results import Result, load_result, run_experiment, save_result


@click.command(short_help="Check the claims of the paper and the lecture.")
@click.argument("name", required=False)
@click.option("--quick", is_flag=True, help="The smallest run that touches everything; numbers mean nothing.")
@click.option("--output", "-o", default="runs/study", show_default=True, type=click.Path(path_type=Path))
@click.option("--data", default="", help="What to train on: a folder, an archive or a named set.")
@click.option("--seeds", default=0, type=click.IntRange(0, 1000), help="Runs of each variant.")
@click.option("--epochs", default=0, type=click.IntRange(0, 10_000), help="Passes over the training images.")
@click.option("--images", default=0, type=click.IntRange(0), help="Training images used.")
@click.option("--device", default="cpu", show_default=True, help="Where to compute.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def study(
    name: str | None,
    quick: bool,
    output: Path,
    data: str,
    seeds: int,
    epochs: int,
    images: int,
    device: str,
    as_json: bool,
) -> int:
    """Run the experiment NAME: print its table, write its JSON and pictures.

    Without NAME the experiments are listed. `all` runs those that have no result in the output folder yet
    and collects everything there in one page, `index.html`; `page` only collects.
    """
    if name is None:
        _list(as_json)
        return 0
    options = Options(quick, data, seeds, epochs, images, device)
    if name not in ("all", "page"):
        _print(_run(find_experiment(name), options, output), as_json)
        return 0
    failed = 0
    for experiment in EXPERIMENTS if name == "all" else ():
        known = load_result(output, experiment.id)
        if known is None or (known.options.quick and not quick):
            failed += not _tried(experiment, options, output, as_json)
    found = [(experiment, load_result(output, experiment.id)) for experiment in EXPERIMENTS]
    say(f"page: {write_page(output, found)}")
    return 1 if failed else 0


def _list(as_json: bool) -> None:
    if as_json:
        print_json([{"id": item.id, "claim": item.claim.en, "cost": item.cost.en} for item in EXPERIMENTS])
        return
    print_table(
        ("experiment", "claim", "on two cores"),
        [
            row
            for item in EXPERIMENTS
            for row in ((item.id, item.claim.en, item.cost.en), ("", item.claim.zh, ""))
        ],
    )


def _tried(experiment: Experiment, options: Options, folder: Path, as_json: bool) -> bool:
    """Run one of several: one that cannot be run must not keep the others from being run."""
    try:
        _print(_run(experiment, options, folder), as_json)
    except InceptionError as error:
        say(f"{experiment.id}: {error}")
        return False
    return True


def _run(experiment: Experiment, options: Options, folder: Path) -> Result:
    started = time.monotonic()

    def progress(line: str) -> None:
        say(f"{experiment.id} {time.monotonic() - started:6.1f} s  {line}")

    result = run_experiment(experiment, options, progress)
    say(f"result: {save_result(folder, result)}")
    for number, chart in enumerate(result.report.charts, start=1):
        suffix = "" if len(result.report.charts) == 1 else f"-{number}"
        atomic_write_text(folder / f"{experiment.id}{suffix}.svg", _standalone(chart_svg(chart, "en")))
    return result


def _standalone(svg: str) -> str:
    return svg if "xmlns=" in svg else svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        print_json(result.to_dict())
        return
    for table in result.report.tables:
        _print_table(table)
    print_table(
        ("claim", "verdict", "why"),
        [(f.claim.en, f.verdict, f.explanation.en) for f in result.report.findings],
    )
    say(f"again: {result.command}")


def _print_table(table: Table) -> None:
    rows = [tuple(map(_english, row)) for row in table.rows]
    print_table(tuple(map(_english, table.heads)), rows, title=table.title.en)


def _english(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.en
