"""The evaluation with several labels an image as one HTML page, in the style of `report`."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inception.evaluate import plots
from inception.evaluate.gallery import Images, picture_of
from inception.evaluate.markup import both, numbers_list, paragraph, percent, ratio_cells, table
from inception.evaluate.multilabel import LabelMetrics, LabelsEvaluation
from inception.evaluate.report import details_list, drawn, report_page, training_section
from inception.files import atomic_write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN_BARS, _SHOWN_ROWS, _SHOWN_IMAGES = 40, 1000, 24
_SECTIONS = {
    "summary": ("Summary", "概要"),
    "details": ("What was measured", "测量对象"),
    "training": ("Training", "训练过程"),
    "labels": ("Labels", "各标签"),
    "worst": ("Furthest from the truth", "偏差最大的图片"),
}
_FOOTER = (
    "AP: average precision, over all thresholds. F1, precision and recall: at each label's threshold.",
    "AP：平均精度，遍历所有阈值。F1、精确率与召回率：按各标签的阈值计算。",
)


def write_label_report(
    path: Path,
    evaluation: LabelsEvaluation,
    *,
    title: str,
    images: Images,
    paths: Sequence[str],
    details: Mapping[str, str],
    history: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the report to `path`, atomically; arguments as in `report.write_report`.

    Raises UsageError when matplotlib is not installed, WriteError when the file cannot be written.
    """
    sections = {
        "summary": _summary(evaluation),
        "details": details_list(details),
        "training": training_section(history),
        "labels": _labels(evaluation),
        "worst": _worst(evaluation, images, paths),
    }
    atomic_write_text(path, report_page(title, sections, _SECTIONS, _FOOTER))


def _summary(evaluation: LabelsEvaluation) -> str:
    pairs = evaluation.n * len(evaluation.labels)
    numbers = [
        (("mAP", "mAP"), percent(evaluation.map), both("mean average precision", "平均精度的均值")),
        (
            ("Macro F1", "宏平均 F1"),
            percent(evaluation.macro.f1),
            both("mean over the labels", "各标签的均值"),
        ),
        (
            ("Micro F1", "微平均 F1"),
            percent(evaluation.micro.f1),
            both(f"over {pairs:,} images x labels", f"遍历 {pairs:,} 个图片与标签的组合"),
        ),
        (
            ("All labels right", "全部标签正确"),
            percent(evaluation.exact),
            both("of the images", "占图片的比例"),
        ),
        (
            ("Loss", "损失"),
            f"{evaluation.loss:.3f}",
            both("binary cross-entropy, nats", "二元交叉熵（nat）"),
        ),
        (
            ("Images", "图片"),
            f"{evaluation.n:,}",
            both(f"{len(evaluation.labels):,} labels", f"{len(evaluation.labels):,} 个标签"),
        ),
    ]
    return numbers_list(numbers)


def _labels(evaluation: LabelsEvaluation) -> str:
    present = [item for item in evaluation.classes if item.support or item.predicted]
    worst_first = sorted(present, key=lambda item: item.average_precision or 0.0)[:_SHOWN_ROWS]
    heads = [
        ("Label", "标签"),
        ("Images", "图片数"),
        ("Given", "预测数"),
        ("Threshold", "阈值"),
        ("AP", "AP"),
        ("Precision", "精确率"),
        ("Recall", "召回率"),
        ("F1", "F1"),
        ("ROC AUC", "ROC AUC"),
    ]
    rows = table(heads, map(_row, worst_first), sorted_column=4, tall=len(worst_first) > _SHOWN_BARS)
    bars = drawn(
        lambda language: _bars(worst_first[:_SHOWN_BARS], language),
        ("Average precision by label", "各标签的平均精度"),
    )
    return bars + rows


def _row(item: LabelMetrics) -> str:
    ratios = (item.average_precision, item.precision, item.recall, item.f1, item.roc_auc)
    cells = ratio_cells(ratios)
    counts = "".join(f'<td data-value="{count}">{count:,}</td>' for count in (item.support, item.predicted))
    threshold = f'<td data-value="{item.threshold}">{item.threshold:.3f}</td>'
    return f"<tr><td>{escape(item.label)}</td>{counts}{threshold}{cells}</tr>"


def _bars(shown: Sequence[LabelMetrics], language: plots.Language) -> "Figure":
    """Average precision (bars) and F1 (marks) of labels."""
    caption = "average precision (bar) and F1 (mark)" if language == "en" else "平均精度（条）与 F1（标记）"
    places = range(len(shown))
    figure, axes = plots.bars_figure([item.label for item in shown])
    axes.barh(places, [item.average_precision or 0.0 for item in shown], 0.66, color=plots.BLUE, alpha=0.75)
    axes.plot([item.f1 or 0.0 for item in shown], places, "s", color=plots.ORANGE, markersize=4)
    plots.style(axes, x=caption)
    axes.set(xlim=(0, 1.02), ylim=(len(shown) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelsize=9)
    plots.percent_axis(axes.xaxis)
    return figure


def _worst(evaluation: LabelsEvaluation, images: Images, paths: Sequence[str]) -> str:
    probabilities = np.clip(evaluation.probabilities, 1e-12, 1 - 1e-12)
    losses = -np.log(np.where(evaluation.truth, probabilities, 1 - probabilities)).mean(axis=1)
    wrong = np.flatnonzero((evaluation.given != evaluation.truth).any(axis=1))
    if not len(wrong):
        return paragraph("Every label of every image is right.", "所有图片的所有标签均正确。")
    shown = wrong[np.argsort(-losses[wrong], kind="stable")][:_SHOWN_IMAGES]
    note = paragraph(
        f"{len(shown)} of {len(wrong):,} images with a wrong label, the largest loss first. "
        "✓ given rightly, ✗ given wrongly, ○ missing.",
        f"{len(wrong):,} 张存在错误标签的图片中的 {len(shown)} 张，损失最大者在前。"
        "✓ 正确给出，✗ 错误给出，○ 遗漏。",
    )
    items = "".join(f"<li>{_figure(evaluation, int(index), images, paths)}</li>" for index in shown)
    return f'{note}<ul class="pictures">{items}</ul>'


def _figure(evaluation: LabelsEvaluation, index: int, images: Images, paths: Sequence[str]) -> str:
    lines, true_names = [], []
    for place, label in enumerate(evaluation.labels):
        true, given = evaluation.truth[index, place], evaluation.given[index, place]
        if true:
            true_names.append(label)
        if true or given:
            sign = "✓" if true and given else "○" if true else "✗"
            css = "right" if true else "wrong"
            lines.append(
                f'<span class="{css}"><b>{sign}&nbsp;{escape(label)}</b>'
                f"{percent(float(evaluation.probabilities[index, place]))}</span>"
            )
    place_text = escape(paths[index]).replace("/", "/<wbr>")
    picture = picture_of(images, index, ", ".join(true_names))
    return (
        f'<figure><div class="frame">{picture}</div><figcaption>{"".join(lines)}'
        f'<span class="path">{place_text}</span></figcaption></figure>'
    )
