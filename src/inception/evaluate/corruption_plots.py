"""Pictures of a classifier's robustness: accuracy by severity, and what the severities look like."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inception.evaluate.corruptions import Robustness
from inception.evaluate.plots import BLUE, INK, Language, new_figure, percent_axis, say, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def robustness_curves(robustness: Robustness, *, language: Language = "en") -> "Figure":
    """Top-1 accuracy by severity for every corruption, with 95% intervals, beside that of clean images.

    Raises:
        UsageError: matplotlib is not installed.
    """
    names = list(dict.fromkeys(level.corruption for level in robustness.levels))
    figure = new_figure(2.5 * len(names) + 0.4, 2.9)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True):
        levels = [level for level in robustness.levels if level.corruption == name]
        places = [0, *(level.severity for level in levels)]
        values = [robustness.top1, *(level.top1 for level in levels)]
        ends = [robustness.top1_interval, *(level.top1_interval for level in levels)]
        axes.axhline(robustness.top1, color=INK, linestyle=(0, (4, 3)), linewidth=1, alpha=0.5)
        axes.fill_between(places, *zip(*ends, strict=True), color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(places, values, color=BLUE, marker="o", markersize=4, clip_on=False)
        style(axes, title=_corruption(name, language), x=say("severity", language))
        axes.set(ylim=(0, 1), xlim=(-0.2, max(places) + 0.2))
        axes.set_xticks(places, [say("clean", language), *map(str, places[1:])])
    figure.axes[0].set_ylabel(say("top-1 accuracy", language).capitalize(), fontsize=9, color=INK)
    percent_axis(figure.axes[0].yaxis)
    figure.subplots_adjust(left=0.075, right=0.99, bottom=0.18, top=0.88, wspace=0.1)
    return figure


def corruption_sheet(
    views: Sequence[NDArray[np.uint8]],
    names: Sequence[str],
    *,
    language: Language = "en",
) -> "Figure":
    """One picture under every corruption (rows) at every severity (columns), the clean one first in each row.

    Args:
        views: H x W x 3 (or H x W) uint8: the clean picture, then severities 1 … S of each corruption.
        names: of the corruptions, in order.
        language: of the captions.

    Raises:
        UsageError: matplotlib is not installed.
    """
    severities = (len(views) - 1) // len(names)
    figure = new_figure(1.25 * (severities + 1) + 0.9, 1.25 * len(names) + 0.4)
    grid = figure.subplots(len(names), severities + 1, squeeze=False)
    for row, name in enumerate(names):
        shown = [views[0], *views[1 + row * severities : 1 + (row + 1) * severities]]
        for column, (axes, view) in enumerate(zip(grid[row], shown, strict=True)):
            axes.imshow(view, cmap="gray", vmin=0, vmax=255, interpolation="none")
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
            if row == 0:
                title = f"{say('severity', language)} {column}" if column else say("clean", language)
                axes.set_title(title, fontsize=9, color=INK)
        grid[row][0].set_ylabel(_corruption(name, language), fontsize=9, color=INK)
    figure.subplots_adjust(left=0.06, right=0.995, bottom=0.01, top=0.93, wspace=0.04, hspace=0.04)
    return figure


def _corruption(name: str, language: Language) -> str:
    text = say(name, language)
    return text.upper() if text == "jpeg" else text[:1].upper() + text[1:]
