"""Pictures of an evaluation and of a training run, as SVG for a page or PNG for a file.

Each drawing function returns a matplotlib `Figure`; `to_svg` and `to_png` render it. Nothing here touches
pyplot or changes matplotlib's settings for good. In the SVG, text stays text (so that any script the
reader's machine knows is shown) and everything black takes the page's text colour, so that one picture
fits a light and a dark page. Colours are Okabe and Ito's (2008), told apart by colour-blind readers.
"""

import io
import math
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from inception.errors import UsageError
from inception.evaluate.metrics import ClassMetrics, Evaluation, wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Language = Literal["en", "zh"]

INK, BLUE, ORANGE = "#1c2024", "#0072b2", "#d55e00"
_IN_PAGE = {INK: "currentColor", BLUE: f"var(--blue, {BLUE})", ORANGE: f"var(--orange, {ORANGE})"}
MAX_HEATMAP_CLASSES = 100
_NUMBERED_CLASSES = 20
_LABEL_WIDTH = 22
_POINTS = 72

_CHINESE = {
    "epoch": "轮次",
    "loss": "损失",
    "top-1 accuracy": "Top-1 准确率",
    "all right; mAP": "全部正确；mAP",
    "learning rate": "学习率",
    "training": "训练",
    "validation": "验证",
    "true class": "真实类别",
    "answered class": "预测类别",
    "confidence": "置信度",
    "accuracy": "准确率",
    "images": "图片数",
    "perfect calibration": "理想校准",
    "mean confidence": "平均置信度",
    "recall, with its 95% interval": "召回率与 95% 区间",
    "severity": "强度",
    "clean": "原图",
    "noise": "噪声",
    "blur": "模糊",
    "jpeg": "JPEG 压缩",
    "brightness": "亮度",
}


def to_svg(figure: "Figure", *, salt: str = "inception") -> str:
    """Render as one `<svg>` element without prolog, metadata, or names that could clash in a page.

    Args:
        figure: what a function of this module returned.
        salt: give each picture on one page another one; the same picture and salt give the same text.
    """
    stream = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with _rendering({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", transparent=True, metadata=no_metadata)
    text = stream.getvalue()
    text = text[text.index("<svg") :].strip()
    # Group names such as axes_1 repeat in each picture, and nothing refers to them.
    text = re.sub(r' id="[A-Za-z.0-9]+_\d+"', "", text)
    text = re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1system-ui, sans-serif", text)
    return re.sub(r"(?<=[el]: )#[0-9a-f]{6}", lambda match: _IN_PAGE.get(match[0], match[0]), text)


def to_png(figure: "Figure", *, dpi: int = 150) -> bytes:
    """Render as PNG on white. Labels in scripts that matplotlib's font lacks need `to_svg`."""
    stream = io.BytesIO()
    with _rendering({}):
        figure.savefig(stream, format="png", dpi=dpi, facecolor="white")
    return stream.getvalue()


def training_curves(rows: Sequence[Mapping[str, Any]], *, language: Language = "en") -> "Figure":
    """Loss, top-1 accuracy and learning rate by epoch, side by side.

    Args:
        rows: objects of `metrics.jsonl`, one an epoch, with `epoch`, `train_loss`, `train_top1`,
            `val_loss`, `val_top1`, `learning_rate`; all but `epoch` may be absent anywhere. Of rows of
            the same epoch the last counts. With several labels an image `train_exact` and `val_map` stand
            in the place of top-1.
        language: of the captions.

    Raises:
        UsageError: there is no row, or matplotlib is not installed.
    """
    if not rows:
        raise UsageError("There are no training metrics to draw; train for at least one epoch.")
    figure = new_figure(9.6, 2.9)
    by_epoch = {row["epoch"]: row for row in rows}
    ordered = [by_epoch[epoch] for epoch in sorted(by_epoch)]
    loss, top1, rate = figure.subplots(1, 3)
    several = any("train_exact" in row or "val_map" in row for row in ordered)
    scores = ("train_exact", "val_map") if several else ("train_top1", "val_top1")
    for axes, (train, val) in ((loss, ("train_loss", "val_loss")), (top1, scores)):
        _curve(axes, ordered, train, color=BLUE, label=say("training", language))
        _curve(axes, ordered, val, color=ORANGE, marker="s", label=say("validation", language))
    _curve(rate, ordered, "learning_rate", color=INK)
    score = "all right; mAP" if several else "top-1 accuracy"
    for axes, title in ((loss, "loss"), (top1, score), (rate, "learning rate")):
        caption = say(title, language)
        style(axes, title=caption[0].upper() + caption[1:], x=say("epoch", language))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    if loss.lines:
        loss.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    percent_axis(top1.yaxis)
    if rate.lines:
        rate.set_ylim(bottom=0)
    figure.subplots_adjust(left=0.065, right=0.985, bottom=0.18, top=0.87, wspace=0.27)
    return figure


def confusion_heatmap(
    evaluation: Evaluation, classes: Sequence[int] | None = None, *, language: Language = "en"
) -> "Figure":
    """The confusion matrix: rows true, columns answered, colour by share of the row.

    Right answers are blue and mistakes orange; mistakes are drawn by the square root of their share, so
    that rare ones are seen. Up to 20 classes the counts are written in the cells.

    Args:
        evaluation: what was measured.
        classes: the classes to show, in order; all when None.
        language: of the captions.

    Raises:
        UsageError: no class or more than 100 of them, or matplotlib is not installed.
    """
    chosen = list(range(len(evaluation.labels))) if classes is None else list(classes)
    if not 0 < len(chosen) <= MAX_HEATMAP_CLASSES:
        raise UsageError(
            f"A heat map is readable from 1 to {MAX_HEATMAP_CLASSES} classes, not {len(chosen)}; "
            "choose classes or list the most confused pairs."
        )
    matrix = evaluation.confusion_matrix(chosen)
    support = np.array([evaluation.classes[index].support for index in chosen])
    share = matrix / np.maximum(support, 1)[:, None]
    faint = np.where(matrix > 0, 0.15 + 0.85 * np.sqrt(share), 0.0)
    strength = np.where(np.eye(len(chosen), dtype=bool), share, faint)
    labels = [_shorten(evaluation.labels[index]) for index in chosen]

    cell = min(max(7.0 / len(chosen), 0.14), 0.7)
    size = min(max(cell * _POINTS * 0.62, 6.0), 10.0)
    margin = max(_text_width(label) for label in labels) * size / _POINTS + 0.5
    side = cell * len(chosen)
    figure = new_figure(margin + side + 0.1, margin + side + 0.1)
    width, height = figure.get_size_inches()
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    axes.imshow(_cell_colors(strength), interpolation="none", aspect="auto")
    axes.set_xticks(range(len(chosen)), labels, parse_math=False)
    for tick in axes.get_xticklabels():
        # Only so does the SVG name the end of the text as its anchor, whatever the width of the letters.
        tick.set(rotation=90, rotation_mode="anchor", ha="right", va="center")
    axes.set_yticks(range(len(chosen)), labels, parse_math=False)
    style(axes, x=say("answered class", language), y=say("true class", language))
    # At the rim, since matplotlib cannot measure labels in scripts that its font lacks.
    axes.xaxis.set_label_coords(0.5, -(margin - 0.22) / side)
    axes.yaxis.set_label_coords(-(margin - 0.22) / side, 0.5)
    axes.grid(visible=False)
    axes.tick_params(labelsize=size, length=0, pad=4)
    axes.set_xticks(np.arange(len(chosen) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(chosen) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=INK, alpha=0.14, linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    if len(chosen) <= _NUMBERED_CLASSES:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            color = "white" if strength[row, column] > 0.6 else INK
            count = str(matrix[row, column])
            axes.text(column, row, count, ha="center", va="center", color=color, fontsize=min(size, 9.5))
    return figure


def reliability_diagram(evaluation: Evaluation, *, language: Language = "en") -> "Figure":
    """Accuracy against confidence over the bins of `evaluation`, and how many images each bin holds.

    Raises:
        UsageError: matplotlib is not installed.
    """
    figure = new_figure(4.6, 5.2)
    main, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    filled = [item for item in evaluation.bins if item.count]
    centers = [(item.lower + item.upper) / 2 for item in filled]
    width = 0.94 / len(evaluation.bins)
    reached, claimed = [item.accuracy for item in filled], [item.confidence for item in filled]
    main.bar(centers, reached, width, color=BLUE, alpha=0.8, label=say("accuracy", language))
    ideal = say("perfect calibration", language)
    main.plot([0, 1], [0, 1], color=INK, linestyle=(0, (4, 3)), linewidth=1, alpha=0.7, label=ideal)
    main.vlines(centers, reached, claimed, color=ORANGE, linewidth=1.2)
    left, right = np.array(centers) - 0.4 * width, np.array(centers) + 0.4 * width
    main.hlines(claimed, left, right, color=ORANGE, linewidth=2.4, label=say("mean confidence", language))
    main.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="upper left")
    counts.bar(centers, [item.count for item in filled], width, color=INK, alpha=0.45)
    style(main, y=say("accuracy", language))
    style(counts, x=say("confidence", language), y=say("images", language))
    main.set(xlim=(0, 1), ylim=(0, 1))
    counts.yaxis.get_major_locator().set_params(nbins=3, integer=True)
    percent_axis(main.yaxis)
    percent_axis(counts.xaxis)
    figure.subplots_adjust(left=0.16, right=0.96, bottom=0.11, top=0.98, hspace=0.12)
    figure.align_ylabels()
    return figure


def class_bars(evaluation: Evaluation, *, limit: int = 40, language: Language = "en") -> "Figure":
    """Recall of the classes that occur, worst first, each with its 95% Wilson interval.

    Args:
        evaluation: what was measured.
        limit: show at most this many classes.
        language: of the captions.

    Raises:
        UsageError: matplotlib is not installed.
    """

    def recall(item: ClassMetrics) -> float:
        return item.recall or 0.0

    present = (item for item in evaluation.classes if item.support)
    shown = sorted(present, key=lambda item: (recall(item), -item.support))[:limit]
    figure, axes = bars_figure([item.label for item in shown])
    places = range(len(shown))
    axes.barh(places, [recall(item) for item in shown], 0.66, color=BLUE, alpha=0.75)
    for place, item in zip(places, shown, strict=True):
        low, high = wilson_interval(round(recall(item) * item.support), item.support)
        axes.plot([low, high], [place, place], color=INK, linewidth=1.2)
    style(axes, x=say("recall, with its 95% interval", language))
    axes.set(xlim=(0, 1), ylim=(len(shown) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelsize=9)
    percent_axis(axes.xaxis)
    return figure


def bars_figure(names: Sequence[str]) -> "tuple[Figure, Axes]":
    """A figure for one horizontal bar a name, its names written at the left."""
    labels = [_shorten(name) for name in names]
    margin = max((_text_width(label) for label in labels), default=0.0) * 9 / _POINTS + 0.2
    width, height = margin + 4.6, 0.26 * len(labels) + 0.6
    figure = new_figure(width, height)
    axes = figure.add_axes((margin / width, 0.5 / height, 4.4 / width, 1 - 0.6 / height))
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    return figure, axes


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of a size in inches; UsageError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "Pictures need matplotlib; install it with: pip install 'inception[report]'"
        ) from error
    return Figure(figsize=(width, height))


@contextmanager
def _rendering(settings: Any) -> Iterator[None]:
    """Matplotlib's settings for one rendering; its font lacks many scripts, which SVG text does not mind."""
    from matplotlib import rc_context

    with warnings.catch_warnings(), rc_context(settings):
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def say(text: str, language: Language) -> str:
    """A caption in the language."""
    return _CHINESE[text] if language == "zh" else text


def style(axes: "Axes", *, title: str = "", x: str = "", y: str = "") -> None:
    """The look of all pictures: small captions, faint grid, no frame above and at the right."""
    axes.set_title(title, loc="left", fontsize=10, color=INK, fontweight="bold")
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    axes.set_axisbelow(True)
    axes.grid(color=INK, alpha=0.14, linewidth=0.6)
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=INK, alpha=0.4, linewidth=0.7)


def percent_axis(axis: Any) -> None:
    """Write an axis of fractions in per cent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1, decimals=None))


def _curve(
    axes: "Axes",
    rows: Sequence[Mapping[str, Any]],
    key: str,
    *,
    color: str,
    marker: str = "o",
    label: str = "",
) -> None:
    points = [
        (row["epoch"], row[key]) for row in rows if row.get(key) is not None and math.isfinite(row[key])
    ]
    if points:
        size = 3.5 if len(points) <= 40 else 0
        axes.plot(*zip(*points, strict=True), color=color, marker=marker, markersize=size, label=label)


def _cell_colors(strength: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Red, green, blue and opacity of each cell; the page shows through where nothing happened."""
    from matplotlib.colors import to_rgb

    colors = np.empty((*strength.shape, 4))
    colors[..., :3] = to_rgb(ORANGE)
    diagonal = np.arange(len(strength))
    colors[diagonal, diagonal, :3] = to_rgb(BLUE)
    colors[..., 3] = strength
    return colors


def _text_width(text: str) -> float:
    """Width in units of the font size, wide (East Asian) characters counted as such."""
    return sum(1.0 if unicodedata.east_asian_width(letter) in "WF" else 0.6 for letter in text)


def _shorten(label: str) -> str:
    """Cut a label to about 22 narrow letters; line breaks and other controls become spaces."""
    label = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in label)
    if _text_width(label) <= 0.6 * _LABEL_WIDTH:
        return label
    while _text_width(label) > 0.6 * (_LABEL_WIDTH - 1):
        label = label[:-1]
    return label.rstrip() + "…"
