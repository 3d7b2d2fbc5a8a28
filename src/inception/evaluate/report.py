"""The evaluation as one HTML page that needs nothing else: no network, no other file, no server.

Texts are in English and Chinese, both in the page; a button switches. Everything that comes from outside
(labels, paths, details) is escaped, and a content security policy lets the page run its own one script
and load nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inception.errors import UsageError
from inception.evaluate import plots
from inception.evaluate.gallery import Images, correct, mistakes, thumbnail
from inception.evaluate.markup import both, numbers_list, page, paragraph, percent, ratio_cells, table
from inception.evaluate.metrics import ClassMetrics, Evaluation, Interval
from inception.files import atomic_write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Images", "thumbnail", "write_report"]

_SHOWN_PAIRS = 15
_SHOWN_ROWS = 1000
_OPEN_ROWS = 30
_SHOWN_BARS = 30

# Names of details that callers commonly give; others are shown as they are in both languages.
_DETAIL_NAMES = {
    "Model": "模型",
    "Data": "数据",
    "Split": "划分",
    "Preprocessing": "预处理",
    "Versions": "版本",
    "Weights": "权重",
    "Device": "设备",
    "Date": "日期",
    "Skipped images": "跳过的图片",
    "Temperature": "温度",
    "Crops": "裁剪方式",
}


def write_report(
    path: Path,
    evaluation: Evaluation,
    *,
    title: str,
    images: Images,
    paths: Sequence[str],
    details: Mapping[str, str],
    history: Sequence[Mapping[str, Any]] | None = None,
    intervals: Mapping[str, Interval] | None = None,
) -> None:
    """Write the report to `path`, atomically.

    Args:
        path: the HTML file to write.
        evaluation: what was measured on N images.
        title: heading of the page.
        images: gives JPEG or PNG bytes (see `thumbnail`) of the image with this index; it is called for
            the few images shown only. An `InceptionError` or `OSError` from it leaves an empty frame.
        paths: names of the N images.
        details: what was evaluated and how (model, data, preprocessing, versions), in this order.
        history: rows of `metrics.jsonl`, to show the training curves.
        intervals: 95% bootstrap intervals (`score_intervals`), shown for loss and balanced accuracy.

    Raises:
        UsageError: there are not N paths, or matplotlib is not installed.
        OSError: the file cannot be written.
    """
    if len(paths) != evaluation.n:
        raise UsageError(f"The report of {evaluation.n} images needs as many paths, got {len(paths)}.")
    sections = {
        "summary": _summary(evaluation, intervals or {}),
        "details": details_list(details),
        "training": training_section(history or ()),
        "confusion": _confusion(evaluation),
        "classes": _classes(evaluation),
        "calibration": _calibration(evaluation),
        "mistakes": mistakes(evaluation, images, paths),
        "correct": correct(evaluation, images, paths),
    }
    atomic_write_text(path, report_page(title, sections, _SECTIONS, _FOOTER))


_FOOTER = (
    "Intervals are 95%: Wilson's of top-1, top-5 and recall of a class; bootstrap of the others.",
    "区间均为 95%：Top-1、Top-5 与各类召回率为 Wilson 得分区间，其余为自助法区间。",
)
_SECTIONS = {
    "summary": ("Summary", "概要"),
    "details": ("What was measured", "测量对象"),
    "training": ("Training", "训练过程"),
    "confusion": ("Confusion", "混淆"),
    "classes": ("Classes", "各类别"),
    "calibration": ("Calibration", "校准"),
    "mistakes": ("Worst mistakes", "最严重的错误"),
    "correct": ("Right answers", "正确示例"),
}


def report_page(
    title: str,
    sections: Mapping[str, str],
    names: Mapping[str, tuple[str, str]],
    footer: tuple[str, str],
) -> str:
    """The page of a report: `sections` (HTML by id; empty ones are left out) under their `names`."""
    shown = {name: body for name, body in sections.items() if body}
    links = "".join(f'<li><a href="#{name}">{both(*names[name])}</a></li>' for name in shown)
    bodies = "\n".join(
        f'<section id="{name}"><h2>{both(*names[name])}</h2>\n{body}</section>'
        for name, body in shown.items()
    )
    script = files(__package__).joinpath("report.js").read_text("utf-8")
    body = f"{bodies}\n<footer>{both(*footer)}</footer>"
    return page(title, escape(title), links, body, script=script)


def _summary(evaluation: Evaluation, intervals: Mapping[str, Interval]) -> str:
    def interval(ends: Interval) -> str:
        return f"{percent(ends[0])} – {percent(ends[1])}"

    def with_interval(note: str, text: str | None) -> str:
        return note if text is None else f"{note}<br>{escape(text)}"

    balanced, loss = intervals.get("balanced_accuracy"), intervals.get("loss")

    wrong = len(evaluation.mistakes)
    numbers = [
        (
            ("Top-1 accuracy", "Top-1 准确率"),
            percent(evaluation.top1),
            escape(interval(evaluation.top1_interval)),
        ),
        (
            ("Balanced accuracy", "平衡准确率"),
            percent(evaluation.balanced_accuracy),
            with_interval(
                both("mean recall of the classes", "各类召回率的均值"), balanced and interval(balanced)
            ),
        ),
        (
            ("Macro F1", "宏平均 F1"),
            percent(evaluation.macro.f1),
            both("mean over the classes", "各类的均值"),
        ),
        (
            ("Loss", "损失"),
            f"{evaluation.loss:.3f}",
            with_interval(
                both("cross-entropy, nats", "交叉熵（nat）"), loss and f"{loss[0]:.3f} – {loss[1]:.3f}"
            ),
        ),
        (
            ("Calibration error", "校准误差"),
            percent(evaluation.calibration_error),
            both("confidence against accuracy", "置信度与准确率之差"),
        ),
        (("Images", "图片"), f"{evaluation.n:,}", both(f"{wrong:,} answered wrongly", f"答错 {wrong:,} 张")),
    ]
    if len(evaluation.labels) > 5:
        top5 = (
            ("Top-5 accuracy", "Top-5 准确率"),
            percent(evaluation.top5),
            escape(interval(evaluation.top5_interval)),
        )
        numbers.insert(1, top5)
    return numbers_list(numbers)


def details_list(details: Mapping[str, str]) -> str:
    """What was measured, as a list of names and texts."""
    if not details:
        return ""
    rows = (
        f"<dt>{both(name, _DETAIL_NAMES.get(name, name))}</dt><dd>{escape(value)}</dd>"
        for name, value in details.items()
    )
    return f"<dl class=details>{''.join(rows)}</dl>"


def drawn(draw: Callable[[plots.Language], "Figure"], name: tuple[str, str], least_width: int = 0) -> str:
    """The picture in both languages; narrower than `least_width` pixels it scrolls instead of shrinking."""
    parts = []
    languages: tuple[tuple[plots.Language, str], ...] = (("en", "en"), ("zh", "zh-CN"))
    for (language, code), words in zip(languages, name, strict=True):
        svg = plots.to_svg(draw(language), salt=name[0] + language)
        svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(words)}" ', 1)
        parts.append(f'<div lang="{code}">{svg}</div>')
    return (
        f'<div class="scroll wide" style="--least:{least_width}px" role="group" tabindex="0" '
        f'aria-label="{escape(" / ".join(name))}">{"".join(parts)}</div>'
    )


def training_section(history: Sequence[Mapping[str, Any]]) -> str:
    """The training curves in both languages; nothing without a history."""
    if not history:
        return ""
    return drawn(
        lambda language: plots.training_curves(history, language=language),
        ("Training curves", "训练曲线"),
        least_width=640,
    )


def _confusion(evaluation: Evaluation) -> str:
    pairs = _pairs(evaluation)
    if len(evaluation.labels) > plots.MAX_HEATMAP_CLASSES:
        return pairs
    picture = drawn(
        lambda language: plots.confusion_heatmap(evaluation, language=language),
        ("Confusion matrix", "混淆矩阵"),
        # Up to five classes the picture fits a phone; with more, its letters must not become too small.
        least_width=min(1480, 320 + 16 * len(evaluation.labels)) if len(evaluation.labels) > 5 else 0,
    )
    note = paragraph(
        "Rows are the true classes, columns the answers. Blue: right; orange: wrong; the stronger, the "
        "larger the share of the row.",
        "行为真实类别，列为预测类别。蓝色为正确，橙色为错误；颜色越深，占该行的比例越大。",
    )
    return note + picture + pairs


def _pairs(evaluation: Evaluation) -> str:
    pairs = evaluation.confused_pairs
    if not pairs:
        return paragraph("No image was answered wrongly.", "没有答错的图片。")
    labels = evaluation.labels
    rows = (
        f"<tr><td>{escape(labels[pair.true])}</td><td class=text>{escape(labels[pair.predicted])}</td>"
        f"<td>{pair.count:,}</td><td>{percent(pair.share)}</td></tr>"
        for pair in pairs[:_SHOWN_PAIRS]
    )
    heads = [
        ("True class", "真实类别"),
        ("Answered", "预测为"),
        ("Images", "图片数"),
        ("Of the class", "占该类"),
    ]
    title = both("Most confused pairs", "最易混淆的类别")
    return f"<h3>{title}</h3>{table(heads, rows, text_columns=2)}"


def _classes(evaluation: Evaluation) -> str:
    present = [item for item in evaluation.classes if item.support or item.predicted]
    worst_first = sorted(present, key=lambda item: item.f1 or 0.0)[:_SHOWN_ROWS]
    heads = [
        ("Class", "类别"),
        ("Images", "图片数"),
        ("Precision", "精确率"),
        ("Recall", "召回率"),
        ("Specificity", "特异度"),
        ("F1", "F1"),
        ("ROC AUC", "ROC AUC"),
    ]
    long = len(worst_first) > _OPEN_ROWS
    rows = table(heads, map(_class_row, worst_first), sorted_column=5, tall=long)
    if long:
        summary = both(f"Table of {len(worst_first):,} classes", f"{len(worst_first):,} 个类别的表格")
        rows = f"<details><summary>{summary}</summary>{rows}</details>"
    hidden = len(evaluation.classes) - len(worst_first)
    note = ""
    if hidden:
        note = paragraph(
            f"{hidden:,} classes are not listed: they do not occur, or are beyond the {_SHOWN_ROWS:,} worst.",
            f"{hidden:,} 个类别未列出：未出现，或不在最差的 {_SHOWN_ROWS:,} 个之内。",
        )
    bars = drawn(
        lambda language: plots.class_bars(evaluation, limit=_SHOWN_BARS, language=language),
        ("Recall by class", "各类召回率"),
    )
    return f"{bars}{rows}{note}"


def _class_row(item: ClassMetrics) -> str:
    ratios = (item.precision, item.recall, item.specificity, item.f1, item.roc_auc)
    cells = ratio_cells(ratios)
    return (
        f'<tr><td>{escape(item.label)}</td><td data-value="{item.support}">{item.support:,}</td>{cells}</tr>'
    )


def _calibration(evaluation: Evaluation) -> str:
    picture = drawn(
        lambda language: plots.reliability_diagram(evaluation, language=language),
        ("Reliability diagram", "可靠性图"),
    )
    error, brier = percent(evaluation.calibration_error), f"{evaluation.brier:.3f}"
    temperature = f"{evaluation.temperature:.3g}"
    text = both(
        "Of the images answered with a confidence of 80%, 80% should be right. Where the orange mark lies "
        "above the bar, the model promises too much. "
        f"Expected calibration error {error}, Brier score {brier}, temperature {temperature}.",
        "置信度为 80% 的图片中，应有 80% 答对。橙色标记高于柱顶之处，模型过于自信。"
        f"期望校准误差 {error}，Brier 分数 {brier}，温度 {temperature}。",
    )
    return f'<div class="columns"><p>{text}</p>{picture}</div>'
