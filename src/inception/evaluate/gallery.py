"""The pictures of the report: the worst mistakes and some right answers."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from inception.errors import InceptionError
from inception.evaluate.markup import both, data_uri, paragraph, percent
from inception.evaluate.metrics import Evaluation

SHOWN_MISTAKES = 24
SHOWN_CORRECT = 12

Images = Callable[[int], bytes]


def thumbnail(image: Image.Image, size: int = 192) -> bytes:
    """A picture for the report, at most `size` pixels a side.

    Args:
        image: any size and mode.
        size: the longer side of the result. Images smaller than half of it are enlarged by a whole
            number without smoothing, so that their pixels can be seen.

    Returns:
        JPEG bytes, or PNG bytes of an enlarged image.
    """
    image = image.convert("RGB")
    factor = size // max(image.size)
    stream = BytesIO()
    if factor >= 2:
        larger = (image.width * factor, image.height * factor)
        image.resize(larger, Image.Resampling.NEAREST).save(stream, "PNG", optimize=True)
    else:
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
        image.save(stream, "JPEG", quality=85, optimize=True)
    return stream.getvalue()


def mistakes(evaluation: Evaluation, images: Images, paths: Sequence[str]) -> str:
    """The most confident mistakes as HTML; empty when there is none."""
    wrong = evaluation.mistakes
    if not len(wrong):
        return ""
    shown = wrong[:SHOWN_MISTAKES]
    note = paragraph(
        f"The {len(shown)} most confident of {len(wrong):,} wrong answers. ✗ the answer, ✓ the true class.",
        f"{len(wrong):,} 个错误答案中置信度最高的 {len(shown)} 个。✗ 为预测，✓ 为真实类别。",
    )
    return note + _gallery(evaluation, shown, images, paths)


def correct(evaluation: Evaluation, images: Images, paths: Sequence[str]) -> str:
    """Some right answers, from the surest to the least sure, as HTML; empty when there is none."""
    samples = evaluation.samples
    right = np.flatnonzero(samples.correct)
    if not len(right):
        return ""
    ordered = right[np.argsort(-samples.confidence[right], kind="stable")]
    # From the surest to the least sure in equal steps: neither the best nor the worst alone.
    steps = np.unique(np.linspace(0, len(ordered) - 1, SHOWN_CORRECT).round().astype(np.int64))
    note = paragraph(
        f"{len(steps)} of {len(right):,}, from the surest to the least sure.",
        f"{len(right):,} 个中的 {len(steps)} 个，从最有把握到最没把握。",
    )
    return note + _gallery(evaluation, ordered[steps], images, paths)


def _gallery(evaluation: Evaluation, shown: Iterable[int], images: Images, paths: Sequence[str]) -> str:
    items = "".join(f"<li>{_figure(evaluation, int(index), images, paths)}</li>" for index in shown)
    return f'<ul class="pictures">{items}</ul>'


def _figure(evaluation: Evaluation, index: int, images: Images, paths: Sequence[str]) -> str:
    samples, labels = evaluation.samples, evaluation.labels
    true, predicted = samples.targets[index], samples.predicted[index]
    right = true == predicted
    lines = _line("✓" if right else "✗", labels[predicted], samples.confidence[index])
    if not right:
        lines += _line("✓", labels[true], samples.target_probability[index])
    place = escape(paths[index]).replace("/", "/<wbr>")
    return (
        f'<figure><div class="frame">{picture_of(images, index, labels[true])}</div><figcaption>{lines}'
        f'<span class="path">{place}</span></figcaption></figure>'
    )


def _line(sign: str, label: str, probability: float) -> str:
    css = "right" if sign == "✓" else "wrong"
    return f'<span class="{css}"><b>{sign}&nbsp;{escape(label)}</b>{percent(probability)}</span>'


def picture_of(images: Images, index: int, label: str) -> str:
    """An `<img>` of one image, or a remark where it cannot be read."""
    try:
        data = images(index)
    except (InceptionError, OSError):
        return both("cannot be read", "无法读取")
    return f'<img alt="{escape(label)}" src="{data_uri(data)}">'
