"""Charts of the study, drawn with matplotlib in the manner of the evaluation's pictures."""

from typing import TYPE_CHECKING

from inception.evaluate.plots import BLUE, INK, ORANGE, Language, new_figure, style, to_svg
from inception.study.experiment import Cell, Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's (2008)."""

_MARKERS = "os^Dv<"
_INCHES = 7.6


def chart_svg(chart: Chart, language: Language) -> str:
    """`chart` as one `<svg>` element. Raises UsageError when matplotlib is not installed."""
    figure = _bars(chart, language) if chart.kind == "bars" else _lines(chart, language)
    return to_svg(figure, salt=chart.title.en + language)


def say(cell: Cell, language: Language) -> str:
    """A cell in one language."""
    return cell if isinstance(cell, str) else getattr(cell, language)


def _bars(chart: Chart, language: Language) -> "Figure":
    groups, kinds = len(chart.categories), len(chart.series)
    figure = new_figure(_INCHES, 1.1 + groups * (0.14 + 0.2 * kinds) + 0.22 * (kinds > 1))
    axes = figure.subplots()
    thickness = 0.82 / kinds
    for index, series in enumerate(chart.series):
        places = [group + (index - (kinds - 1) / 2) * thickness for group in range(groups)]
        name = say(series.name, language)
        axes.barh(places, series.values, thickness * 0.9, color=COLORS[index], alpha=0.85, label=name)
        if series.low:
            axes.hlines(places, series.low, series.high, color=INK, linewidth=1.4)
    axes.set_yticks(range(groups), [say(name, language) for name in chart.categories], parse_math=False)
    axes.set_ylim(groups - 0.45, -0.55)
    if chart.logarithmic:
        axes.set_xscale("log")
    _style(axes, chart, say(chart.value, language), "", language)
    axes.grid(visible=False, axis="y")
    longest = max(_width(say(name, language)) for name in chart.categories)
    height = figure.get_size_inches()[1]
    left = min(0.15 + 0.085 * longest, 0.5 * _INCHES) / _INCHES
    top = 1 - (0.36 + 0.24 * (kinds > 1)) / height
    figure.subplots_adjust(left=left, right=0.97, bottom=0.52 / height, top=top)
    _legend(axes, kinds)
    return figure


def _lines(chart: Chart, language: Language) -> "Figure":
    figure = new_figure(_INCHES, 3.6)
    axes = figure.subplots()
    for index, series in enumerate(chart.series):
        color, marker = COLORS[index % len(COLORS)], _MARKERS[index % len(_MARKERS)]
        name = say(series.name, language)
        axes.plot(
            series.at, series.values, color=color, marker=marker, markersize=3.5, linewidth=1.6, label=name
        )
        if series.low:
            axes.fill_between(series.at, series.low, series.high, color=color, alpha=0.15, linewidth=0)
    if chart.logarithmic:
        axes.set_yscale("log")
    _style(axes, chart, say(chart.place, language), say(chart.value, language), language)
    figure.subplots_adjust(left=0.11, right=0.97, bottom=0.14, top=0.81)
    _legend(axes, len(chart.series))
    return figure


def _legend(axes: "Axes", kinds: int) -> None:
    if kinds > 1:
        axes.legend(
            frameon=False,
            fontsize=8.5,
            labelcolor=INK,
            borderaxespad=0.1,
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=min(kinds, 4),
        )


def _style(axes: "Axes", chart: Chart, x: str, y: str, language: Language) -> None:
    style(axes, x=x, y=y)
    axes.set_title(
        say(chart.title, language),
        loc="left",
        fontsize=10.5,
        color=INK,
        fontweight="bold",
        pad=24 if len(chart.series) > 1 else 8,  # room for the legend
    )
    axes.tick_params(labelsize=9)


def _width(text: str) -> float:
    """Letters of Latin width in `text`; East Asian ones count double."""
    return sum(1.0 if ord(letter) < 0x2E80 else 1.9 for letter in text)
