"""`inception sweep`: many training runs, and the options of the best one."""

from pathlib import Path
from typing import Any

import click

from inception.cli.console import make_progress, print_json, print_table
from inception.cli.train import TerminalObserver, training_options
from inception.errors import UsageError
from inception.train.config import TrainConfig, read_config


@click.command(short_help="Search for the best training options.")
@click.argument("data", required=False, default="")
@click.option("--trials", default=20, show_default=True, type=click.IntRange(1, 10_000), help="Runs in all.")
@click.option(
    "--over",
    multiple=True,
    help="Option to vary, repeatable; default learning_rate, weight_decay and label_smoothing.",
)
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML file of these options.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@training_options
def sweep_command(
    data: str, trials: int, over: tuple[str, ...], config_path: Path | None, as_json: bool, **options: Any
) -> None:
    """Train on DATA with varied options, and leave the best ones in a file for `train --config`.

    Rates and decays vary around the recipe's own values, which are the first trial. Trials are judged by the
    val split, and stopped early when others were better by then; the test split is never read. The same
    command again continues a sweep that was stopped, up to --trials in all. All other options are those of
    `train`, the same in every trial.
    """
    values = read_config(config_path) if config_path else {}
    values |= {name: value for name, value in options.items() if value is not None}
    if data:
        values["data"] = data
    config = TrainConfig.from_dict(values)
    if not config.data:
        raise UsageError("say what to train on: a folder, an archive, a CSV or a named set")
    # Imported after the options are checked: it brings the heavy libraries.
    from inception.train.sweep import BEST_FILE, USUAL, sweep

    chosen = tuple(dict.fromkeys(name.replace("-", "_") for name in over)) or USUAL
    with make_progress() as progress:
        result = sweep(config, trials, chosen, TerminalObserver(progress))
    best = result.best
    if as_json:
        print_json(
            {
                "best": {"trial": best.number, "val": best.score, "options": best.options},
                "config": str(result.folder / BEST_FILE),
                "trials": len(result.trials),
            }
        )
        return
    ordered = sorted(
        result.trials, key=lambda trial: -1.0 if trial.score is None else trial.score, reverse=True
    )
    rows = [
        (
            str(trial.number),
            "best" if trial.number == best.number else trial.state,
            "-" if trial.score is None else f"{100 * trial.score:.2f}%",
            str(trial.epochs),
            *(_cell(trial.options.get(name)) for name in chosen),
        )
        for trial in ordered
    ]
    print_table(("trial", "state", "val", "epochs", *chosen), rows)
    print_table(("swept", ""), [("best options", str(result.folder / BEST_FILE))])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
