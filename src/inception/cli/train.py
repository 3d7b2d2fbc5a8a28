"""`inception train`: a recipe in, a run folder out."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from inception.cli.console import Bar, make_progress, print_json, print_table, say
from inception.train.config import TrainConfig, read_config
from inception.train.log import Row


def training_options(command: Any) -> Any:
    """One command-line option for each field of TrainConfig except `data`."""
    for item in reversed(dataclasses.fields(TrainConfig)[1:]):
        flags = ["-o"] if item.name == "output" else []
        flags.append("--" + item.name.replace("_", "-"))
        text, choices = item.metadata["help"], item.metadata["choices"]
        if isinstance(item.default, bool):
            option = click.option(*flags, item.name, is_flag=True, default=None, help=text)
        else:
            kind = click.Choice(choices) if choices else type(item.default)
            shown = f"  [default: {item.default}]" if item.default != "" else ""
            option = click.option(*flags, item.name, type=kind, default=None, help=text + shown)
        command = option(command)
    return command


@click.command(short_help="Train a classifier on a folder of images.")
@click.argument("data", required=False, default="")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML file of these options.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@training_options
def train(data: str, config_path: Path | None, as_json: bool, **options: Any) -> None:
    """Train a classifier on DATA: a folder of class folders, a .zip or .tar of it, a CSV, or a named set
    (digits, cifar10, fashion-mnist, flowers102). A CSV with a column `labels` (separated by `;`), or with one
    column of 0 and 1 for each label, trains a classifier that gives an image several labels, or none.

    Leaves the bundle, metrics.jsonl, TensorBoard events, curves.png and checkpoints in the run folder.
    Options given here win over those in --config. Ctrl-C saves and stops; --resume continues, also after
    a crash. Under torchrun the processes train together.
    """
    values = read_config(config_path) if config_path else {}
    values |= {name: value for name, value in options.items() if value is not None}
    if data:
        values["data"] = data
    config = TrainConfig.from_dict(values)
    # Imported after the options are checked: it brings the heavy libraries.
    from inception.train.ranks import is_first_process
    from inception.train.run import train_bundle

    with make_progress() as progress:
        result = train_bundle(config, TerminalObserver(progress), said=values.keys())
    if not is_first_process():
        return
    for path, reason in list(result.unreadable.items())[:5]:
        say(f"skipped {path}: {reason}")
    if len(result.unreadable) > 5:
        say(f"… and {len(result.unreadable) - 5} more unreadable images; run `inception check`")
    for reason, count in result.left_out.items():
        say(f"left out: {count} ({reason})")
    if as_json:
        print_json(
            {
                "bundle": str(result.bundle),
                "best_epoch": result.best_epoch,
                "val": result.metrics,
                "unreadable": len(result.unreadable),
                "left_out": result.left_out,
            }
        )
        return
    rows = [("bundle", str(result.bundle)), ("best epoch", str(result.best_epoch))]
    if "map" in result.metrics:
        rows += [
            ("val mAP", f"{result.metrics['map']:.4f}"),
            ("val macro F1, thresholds fitted", f"{result.metrics['macro_f1']:.4f}"),
        ]
    elif result.metrics:
        rows += [
            ("val top-1", f"{100 * result.metrics['top1']:.2f}%"),
            ("val loss, calibrated", f"{result.metrics['loss']:.4f}"),
        ]
    print_table(("trained", ""), rows)


class TerminalObserver:
    """Shows a run as it goes: a bar within each epoch, a line after it."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bar: Bar | None = None
        self.task: Any = None

    def message(self, text: str) -> None:
        """See `inception.train.log.Observer`."""
        say(text)

    def downloading(self, done: int, total: int | None) -> None:
        """See `inception.train.log.Observer`."""
        if self.bar is None:
            self._open("downloading", total)
        if self.task is not None:
            self.progress.update(self.task, completed=done, total=total)

    def epoch_started(self, epoch: int, epochs: int, images: int) -> None:
        """See `inception.train.log.Observer`."""
        self._close()
        before = "trying" if epochs else "features"
        self._open(f"epoch {epoch}/{epochs}" if epoch else before, images)

    def batch_done(self, images: int, loss: float) -> None:
        """See `inception.train.log.Observer`."""
        if self.bar is not None:
            self.bar.advance(images, "" if math.isnan(loss) else f"images, loss {loss:.3f}")

    def epoch_done(self, row: Row) -> None:
        """See `inception.train.log.Observer`."""
        self._close()
        parts = [f"epoch {row['epoch']:>3}"]
        for key, name in (
            ("train_loss", "loss"),
            ("train_top1", "train"),
            ("train_exact", "all labels right"),
            ("val_loss", "val loss"),
            ("val_top1", "val"),
            ("val_map", "val mAP"),
        ):
            if key in row:
                value, percent = row[key], key.endswith(("top1", "exact"))
                loss = f"{value:.4f}" if abs(value) < 1e6 else f"{value:.3g}"
                parts.append(f"{name} {100 * value:.2f}%" if percent else f"{name} {loss}")
        if "images_per_s" in row:
            parts.append(f"{row['images_per_s']:.0f} images/s")
        if row.get("skipped"):
            parts.append(f"{row['skipped']:.0f} steps left out so far")
        say("  ".join(parts))

    def _open(self, name: str, total: int | None) -> None:
        self.task = self.progress.add_task(name, total=total, note="")
        self.bar = Bar(self.progress, self.task)

    def _close(self) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.task = self.bar = None
