"""How a classifier's accuracy falls when its pictures get worse.

Sources: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (2019): Gaussian noise, brightness, JPEG, and Gaussian blur from its extra set, each at their
five severities. As there, a picture is corrupted after it has been cut to the network's input.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from inception.data.loader import Loader, ahead
from inception.data.preprocess import Preprocess, to_tensor
from inception.errors import DataError
from inception.evaluate.metrics import Interval, wilson_interval
from inception.evaluate.significance import mean_interval
from inception.runtime.classifier import Classifier

SEVERITIES = (1, 2, 3, 4, 5)
_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)
_BLUR = (1, 2, 3, 4, 6)
_JPEG = (25, 18, 15, 10, 7)
_BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
_BLUR_SIDE = 224
_VIEWS_AT_ONCE = 63

Corruption = Callable[[Image.Image, int, np.random.Generator], Image.Image]
"""(RGB picture, severity 1 to 5, generator) -> RGB picture of the same size."""


def noise(image: Image.Image, severity: int, generator: np.random.Generator) -> Image.Image:
    """Gaussian noise of standard deviation 0.08 to 0.38 of the full range on every value."""
    values = np.asarray(image, dtype=np.float32)
    drawn = generator.normal(0.0, 255 * _NOISE[severity - 1], values.shape)
    return Image.fromarray(np.rint(np.clip(values + drawn, 0, 255)).astype(np.uint8))


def blur(image: Image.Image, severity: int, generator: np.random.Generator) -> Image.Image:
    """Gaussian blur of radius 1 to 6 pixels in a picture of 224, in proportion for other sizes."""
    radius = _BLUR[severity - 1] * min(image.size) / _BLUR_SIDE
    return image.filter(ImageFilter.GaussianBlur(radius))


def jpeg(image: Image.Image, severity: int, generator: np.random.Generator) -> Image.Image:
    """Stored as JPEG of quality 25 to 7 and read again."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_JPEG[severity - 1])
    return Image.open(stream).convert("RGB")


def brightness(image: Image.Image, severity: int, generator: np.random.Generator) -> Image.Image:
    """V of HSV (the largest of red, green and blue) raised by 0.1 to 0.5 of the full range; hue stays."""
    values = np.asarray(image, dtype=np.float32) / 255
    value = values.max(axis=2, keepdims=True)
    raised = np.minimum(value + _BRIGHTNESS[severity - 1], 1.0)
    # In HSV red, green and blue are all proportional to V; of black there is nothing but V.
    brighter = np.where(value > 0, values * (raised / np.maximum(value, 1e-6)), raised)
    return Image.fromarray(np.rint(255 * brighter).astype(np.uint8))


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": noise,
    "blur": blur,
    "jpeg": jpeg,
    "brightness": brightness,
}


@dataclass(frozen=True)
class Level:
    """The accuracy under one corruption at one severity; fractions.

    Attributes:
        severity: 1 to 5.
        top1, top5: with 95% Wilson intervals.
        top1_change: against the clean images, with its paired 95% bootstrap interval.
    """

    corruption: str
    severity: int
    top1: float
    top1_interval: Interval
    top5: float
    top5_interval: Interval
    top1_change: float
    top1_change_interval: Interval


@dataclass(frozen=True)
class Robustness:
    """What a classifier keeps of its accuracy on worse pictures.

    Attributes:
        n: number of images.
        top1, top5: on the clean images, with 95% Wilson intervals.
        levels: one for each corruption and severity.
        mean_top1: mean over all of them.
        unreadable: images left out, and why.
    """

    n: int
    top1: float
    top1_interval: Interval
    top5: float
    top5_interval: Interval
    levels: tuple[Level, ...]
    mean_top1: float
    unreadable: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return asdict(self)


def corrupted_views(image: Image.Image, preprocess: Preprocess, seed: int) -> Tensor:
    """The clean picture and all corrupted ones as the network sees them.

    Args:
        image: mode RGB, whole.
        preprocess: cuts it to the network's input before it is corrupted.
        seed: of the noise; the same for the same image in every run.

    Returns:
        uint8 21 x C x H x W: clean, then each corruption of `CORRUPTIONS` at severities 1 to 5.
    """
    # A network of one channel sees the grey of the corrupted colour picture.
    picture = _cut(image, preprocess)
    views = [picture]
    for place, corrupt in enumerate(CORRUPTIONS.values()):
        for severity in SEVERITIES:
            generator = np.random.default_rng((seed, place, severity))
            views.append(corrupt(picture, severity, generator))
    return torch.stack([to_tensor(view, preprocess.color) for view in views])


def _cut(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    color = replace(preprocess, color="RGB", mean=(0.0,) * 3, std=(1.0,) * 3)
    return Image.fromarray(color.apply(image).permute(1, 2, 0).numpy())


def measure_robustness(
    classifier: Classifier, loader: Loader, progress: Callable[[int], None] | None = None
) -> Robustness:
    """Measure a classifier on clean and corrupted images, each decoded once.

    Args:
        classifier: what to measure.
        loader: of the images, targets being indices into the classifier's labels.
        progress: told the number of images after each batch.

    Raises:
        DataError: no image can be read.
    """

    def prepare(index: int) -> tuple[int, Tensor] | None:
        try:
            return index, corrupted_views(
                loader.image(index, classifier.preprocess), classifier.preprocess, index
            )
        except DataError as error:
            if loader.strict:
                raise DataError(f"{error}; without --strict unreadable images are skipped") from error
            loader.unreadable[loader.samples[index].path] = str(error)
            return None

    ranks, group = [], []
    for item in ahead(prepare, range(len(loader)), loader.workers):
        if item is not None:
            group.append(item)
        if len(group) * (1 + len(CORRUPTIONS) * len(SEVERITIES)) >= _VIEWS_AT_ONCE:
            ranks += _ranks(classifier, loader, group)
            _tell(progress, len(group))
            group = []
    if group:
        ranks += _ranks(classifier, loader, group)
        _tell(progress, len(group))
    if not ranks:
        raise DataError(f"{loader.dataset.name}: none of its {len(loader)} images can be read")
    return _summarise(np.stack(ranks), len(classifier.labels), dict(loader.unreadable))


def _tell(progress: Callable[[int], None] | None, count: int) -> None:
    if progress is not None:
        progress(count)


def _ranks(
    classifier: Classifier, loader: Loader, group: Sequence[tuple[int, Tensor]]
) -> list[NDArray[np.int64]]:
    """For each image how many classes stand before the true one, in each of its views."""
    logits = classifier.logits(torch.cat([views for _, views in group])).numpy()
    rows = []
    for (index, _), answers in zip(group, np.split(logits, len(group)), strict=True):
        label = loader.samples[index].label
        wanted = answers[:, [label]]
        before = np.arange(answers.shape[1]) < label
        rows.append(((answers > wanted) | ((answers == wanted) & before)).sum(axis=1).astype(np.int64))
    return rows


def _summarise(ranks: NDArray[np.int64], classes: int, unreadable: dict[str, str]) -> Robustness:
    right = {"top1": ranks == 0, "top5": ranks < min(5, classes)}
    count = len(ranks)

    def accuracies(column: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, hits in right.items():
            values[name] = float(hits[:, column].mean())
            values[f"{name}_interval"] = wilson_interval(int(hits[:, column].sum()), count)
        return values

    levels = []
    for place, name in enumerate(CORRUPTIONS):
        for severity in SEVERITIES:
            column = place * len(SEVERITIES) + severity
            change = right["top1"][:, column].astype(np.int64) - right["top1"][:, 0]
            levels.append(
                Level(
                    name,
                    severity,
                    **accuracies(column),
                    top1_change=float(change.mean()),
                    top1_change_interval=mean_interval(change),
                )
            )
    mean = float(np.mean([level.top1 for level in levels]))
    return Robustness(n=count, **accuracies(0), levels=tuple(levels), mean_top1=mean, unreadable=unreadable)
