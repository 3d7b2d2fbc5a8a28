"""The finished trials of a sweep, and their picture."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inception.errors import UsageError
from inception.files import atomic_write_bytes


@dataclass(frozen=True)
class TrialResult:
    """One trial: `state` is complete, pruned or failed; `score` its accuracy (or mAP) on val, if any."""

    number: int
    state: str
    score: float | None
    options: dict[str, Any]
    epochs: int


def draw_sweep(trials: Sequence[TrialResult], best: TrialResult, path: Path) -> None:
    """Val score by trial, and by the value of each option; nothing where matplotlib is not installed.

    Complete trials are filled, pruned ones hollow at what they had reached, the best one is orange.
    """
    from inception.evaluate import plots

    scored = [trial for trial in trials if trial.score is not None]
    names = list(best.options)
    with suppress(UsageError):
        figure = plots.new_figure(3.0 * (len(names) + 1), 2.9)
        panels = figure.subplots(1, len(names) + 1, sharey=True)
        for axes, name in zip(panels, ["trial", *names], strict=True):
            values: list[Any] = [trial.number if name == "trial" else trial.options[name] for trial in scored]
            for trial, value in zip(scored, values, strict=True):
                color = plots.ORANGE if trial.number == best.number else plots.BLUE
                face = color if trial.state == "complete" else "none"
                axes.plot([value], [trial.score], "o", color=color, markerfacecolor=face, markersize=5)
            plots.style(axes, x=name.replace("_", " "), y="score on val" if name == "trial" else "")
            if name in ("learning_rate", "weight_decay") and min(values) > 0:
                _logarithmic(axes)
            if name == "trial":
                axes.xaxis.get_major_locator().set_params(integer=True)
        plots.percent_axis(panels[0].yaxis)
        left = 0.75 / figure.get_size_inches()[0]
        figure.subplots_adjust(left=left, right=0.985, bottom=0.18, top=0.95, wspace=0.12)
        atomic_write_bytes(path, plots.to_png(figure))


def _logarithmic(axes: Any) -> None:
    """A logarithmic axis of values, with a few plain numbers even where it spans less than a decade."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
