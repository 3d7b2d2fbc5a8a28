"""The views that papers evaluate on: one image seen once, or as 10, 12 or 144 squares.

Sources: Krizhevsky et al. 2012, section 4.1 (four corners, centre, mirrored); Szegedy et al. 2015, section 7
(144 crops). The image's shorter side is resized to 256, 288, 320 and 352 pixels for a network of 224, and in
the same proportions for others; from each the left, centre and right square is taken (top, centre and bottom
of a tall image); of each square its four corners and centre, and the whole square made smaller; and all of
them mirrored: 4 x 3 x 6 x 2.

Small images have no room for such crops. For them, and for any input, there is the bundle's own view with its
mirror image, and both of these moved a little as in the CIFAR-10 speed runs (Jordan 2024, "94% on CIFAR-10 in
3.29 seconds on a single GPU", section 3.5).

A crop is resampled once from the original pixels, never from a resized picture. The whole square is the same
at all four scales then, and left, centre and right are the same in a square image: equal views are computed
once and counted as often as they occur.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from inception.data.preprocess import RESAMPLING, Preprocess, to_tensor
from inception.errors import UsageError

Crops = Literal["single", "2", "6", "1", "10", "12", "144", "dense"]
CROPS: tuple[Crops, ...] = ("single", "2", "6", "1", "10", "12", "144", "dense")
"""`single` is the bundle's own preprocessing, `1` the paper's centre crop; `dense` is of `dense.py`."""

OWN: dict[Crops, tuple[float, ...]] = {
    "single": (1.0,),
    "2": (1 / 2, 1 / 2),
    "6": (1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8),
}
"""Shares of the views that `own_views` makes of the bundle's own."""

_COUNTS = {"1": 1, "10": 10, "12": 12, "144": 144}
# Shorter sides in sevenths of the network's input: 256, 288, 320 and 352 for 224.
_SEVENTHS = (8, 9, 10, 11)


@dataclass(frozen=True)
class View:
    """A square of an image.

    Attributes:
        box: left, top, right, bottom in pixels of the original image, not always whole.
        mirrored: whether left and right change places.
    """

    box: tuple[float, float, float, float]
    mirrored: bool


def crop_views(crops: Crops, image_size: tuple[int, int], side: int) -> Counter[View]:
    """The distinct views of an image and how often each counts; the counts sum to 1, 10, 12 or 144.

    Args:
        crops: `1`, `10`, `12` or `144`.
        image_size: width and height in pixels.
        side: of the network's square input.

    Raises:
        UsageError: crops of another kind.
    """
    if crops not in _COUNTS:
        raise UsageError(f"crops must be one of {', '.join(_COUNTS)}, not {crops!r}")
    spare = max(image_size) - min(image_size)
    origins = [0.0, spare / 2, float(spare)] if crops == "144" else [spare / 2]
    views: Counter[View] = Counter()
    for sevenths in _SEVENTHS if crops == "144" else _SEVENTHS[:1]:
        for origin in origins:
            for box in _square_boxes(crops, image_size, origin, side, round(side * sevenths / 7)):
                views[View(box, mirrored=False)] += 1
                if crops != "1":
                    views[View(box, mirrored=True)] += 1
    return views


def _square_boxes(
    crops: Crops, image_size: tuple[int, int], origin: float, side: int, scale: int
) -> Iterator[tuple[float, float, float, float]]:
    """Boxes in one square of an image whose shorter side would be resized to `scale`."""
    width, height = image_size
    short = min(image_size)
    left, top = (origin, 0.0) if width > height else (0.0, origin)
    pixel = short / scale
    rest = scale - side
    middle = (rest // 2, rest // 2)
    places = [middle] if crops == "1" else [(0, 0), (rest, 0), (0, rest), (rest, rest), middle]
    for x, y in places:
        right, bottom = left + (x + side) * pixel, top + (y + side) * pixel
        yield (left + x * pixel, top + y * pixel, min(right, float(width)), min(bottom, float(height)))
    if crops in ("12", "144"):
        yield (left, top, left + short, top + short)


def cut_views(image: Image.Image, views: Sequence[View], preprocess: Preprocess) -> Tensor:
    """The views as the network sees them: uint8 V x C x side x side.

    Args:
        image: mode RGB, the one that the views' boxes were made for.
        views: at least one.
        preprocess: gives the size, the filter and the colour order.
    """
    size, filter_ = (preprocess.width, preprocess.height), RESAMPLING[preprocess.interpolation]
    cut = {
        box: to_tensor(image.resize(size, filter_, box=box), preprocess.color)
        for box in {view.box for view in views}
    }
    return torch.stack([cut[view.box].flip(-1) if view.mirrored else cut[view.box] for view in views])


@dataclass(frozen=True, eq=False)
class Seen:
    """One image as the network is to see it.

    Attributes:
        pixels: uint8 V x C x H x W, all distinct views.
        weights: float32 S x V, for each way of cropping the share of each view; rows sum to 1.
    """

    pixels: Tensor
    weights: NDArray[np.float32]


def own_views(view: Tensor, count: int) -> Tensor:
    """The first `count` (up to 6) of: a view, moved to the lower right, to the upper left; each mirrored.

    It is moved by a thirty-second of its side, at least a pixel; the border is filled with its reflection.

    Args:
        view: uint8 C x H x W.

    Returns:
        uint8 count x C x H x W: as it is, mirrored, moved, moved and mirrored, moved the other way, and that
        mirrored.
    """
    height, width = view.shape[1:]
    step = max(round(min(height, width) / 32), 1)
    rows, columns = (np.pad(np.arange(length), step, "reflect") for length in (height, width))
    padded = view[:, torch.from_numpy(rows)][:, :, torch.from_numpy(columns)]
    moved = [view, padded[:, :height, :width], padded[:, 2 * step :, 2 * step :]]
    return torch.stack([way for picture in moved for way in (picture, picture.flip(-1))][:count])


def see(image: Image.Image, crops: Collection[Crops], preprocess: Preprocess) -> Seen:
    """All views that several ways of cropping need, each cut once.

    Args:
        image: mode RGB.
        crops: all of `CROPS` but `dense`; the rows of the weights are in this order.
        preprocess: the bundle's.

    Raises:
        UsageError: the network's input is not square.
    """
    if preprocess.width != preprocess.height and not OWN.keys() >= set(crops):
        raise UsageError(
            f"crops are squares, and this bundle's input is {preprocess.width} x {preprocess.height}; "
            f"use --crops {', '.join(OWN)}"
        )
    wanted = {name: crop_views(name, image.size, preprocess.width) for name in crops if name not in OWN}
    distinct = list(dict.fromkeys(view for views in wanted.values() for view in views))
    pixels = [cut_views(image, distinct, preprocess)] if distinct else []
    count = max((len(OWN[name]) for name in crops if name in OWN), default=0)
    if count:
        pixels.append(own_views(preprocess.apply(image), count))
    weights = np.zeros((len(crops), len(distinct) + count), dtype=np.float32)
    for row, name in enumerate(crops):
        if name in OWN:
            weights[row, len(distinct) : len(distinct) + len(OWN[name])] = OWN[name]
        else:
            weights[row, : len(distinct)] = [wanted[name][view] / _COUNTS[name] for view in distinct]
    return Seen(torch.cat(pixels), weights)
