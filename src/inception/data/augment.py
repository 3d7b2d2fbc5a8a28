"""Training-time views of an image: each a function of the image and of its draw's numbers (see `draws`)."""

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inception.data.draws import Uniforms, uniforms
from inception.data.native.cuts import mean_grey, recolour, resize_cut
from inception.data.photo import Photo, Reduce
from inception.data.preprocess import RESAMPLING, Preprocess

AugmentName = Literal["none", "shift", "cutout", "alternating", "crop", "paper"]
Box = tuple[int, int, int, int]
Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Augment:
    """How training views differ from the evaluation view.

    Attributes:
        min_area: smallest share of the image's area a view shows; 1.0 keeps the evaluation crop.
        aspect: least and greatest width / height of the cut, before it is resized to the network's shape.
        random_interpolation: draw the resampling filter (bilinear, box, nearest, bicubic) for each view.
        photometric: strength s of brightness, contrast and colour changes, each a factor in 1-s .. 1+s, in
            random order (Howard 2013); 0 for none.
        max_shift: greatest shift in each direction as a share of the side.
        reflect: fill the border of shifted images with their mirror image instead of zeros.
        flip: mirror half of the views left to right.
        alternate: mirror an image in every other epoch, half of them in the even ones, rather than at random:
            two epochs then show every image both ways (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a
            single GPU", section 3.6).
        cutout: side of a square of zeros as a share of the view's side, its centre anywhere (DeVries and
            Taylor 2017); 0 for none.
    """

    min_area: float = 1.0
    aspect: tuple[float, float] = (1.0, 1.0)
    random_interpolation: bool = False
    photometric: float = 0.0
    max_shift: float = 0.0
    reflect: bool = False
    flip: bool = True
    alternate: bool = False
    cutout: float = 0.0


# `paper` is section 6 of Szegedy et al. 2015; `crop` a milder one for fine-tuning; `shift` for small images,
# with `cutout` for long runs and `alternating` for short ones where there are many.
AUGMENTS: dict[AugmentName, Augment] = {
    "none": Augment(flip=False),
    "shift": Augment(max_shift=0.125),
    "cutout": Augment(max_shift=0.125, cutout=0.25),
    "alternating": Augment(max_shift=0.0625, reflect=True, alternate=True, cutout=0.25),
    "crop": Augment(min_area=0.35, aspect=(3 / 4, 4 / 3), photometric=0.2),
    "paper": Augment(min_area=0.08, aspect=(3 / 4, 4 / 3), random_interpolation=True, photometric=0.4),
}
REDUCTION_MARGIN = 1.5
"""Photographs are decoded at reduced size while their smallest cut keeps this many times the view's side."""
FilterName = Literal["bilinear", "box", "nearest", "bicubic"]
_FILTERS: tuple[FilterName, ...] = ("bilinear", "box", "nearest", "bicubic")
_ORDERS = tuple(permutations(range(3)))

# Which of a draw's numbers decides what: each has its place, so that no option changes what another draws.
NUMBERS = 32
_TRIES, _PLACE, _FILTER, _ORDER, _FACTORS = 10, 20, 22, 23, 24
_SHIFT, _FLIP, _CUTOUT = 27, 29, 30


def view_numbers(seed: int, epoch: int, draws: NDArray[np.int64], alternate: bool = False) -> Uniforms:
    """What decides the views of N draws: float64 N x NUMBERS, the same whatever thread or process asks.

    With `alternate`, the number that mirrors an image is that of epoch 0, and its opposite in odd epochs.
    """
    numbers = uniforms(seed, epoch, draws, NUMBERS)
    if alternate and epoch:
        numbers[:, _FLIP] = (uniforms(seed, 0, draws, NUMBERS)[:, _FLIP] + 0.5 * (epoch % 2)) % 1.0
    return numbers


def random_box(size: tuple[int, int], augment: Augment, numbers: Uniforms) -> Box:
    """A random cut (left, top, right, bottom) of an image of `size` (width, height), in whole pixels.

    Area uniform in min_area..1 of the image, log-uniform aspect; after ten cuts that do not fit, the
    largest centred cut with an allowed aspect.

    Args:
        size: of the image.
        augment: with the ranges.
        numbers: one row of `view_numbers`.
    """
    width, height = size
    low, high = math.log(augment.aspect[0]), math.log(augment.aspect[1])
    drawn = numbers[: _PLACE + 2].tolist()
    for share, shape in zip(drawn[:_PLACE:2], drawn[1:_PLACE:2], strict=True):
        area = width * height * (augment.min_area + share * (1.0 - augment.min_area))
        aspect = math.exp(low + shape * (high - low))
        cut_width, cut_height = (
            max(round(math.sqrt(area * aspect)), 1),
            max(round(math.sqrt(area / aspect)), 1),
        )
        if cut_width <= width and cut_height <= height:
            left = int(drawn[_PLACE] * (width - cut_width + 1))
            top = int(drawn[_PLACE + 1] * (height - cut_height + 1))
            return (left, top, left + cut_width, top + cut_height)
    aspect = min(max(width / height, augment.aspect[0]), augment.aspect[1])
    cut_width = max(round(min(width, height * aspect)), 1)
    cut_height = max(round(min(height, width / aspect)), 1)
    left, top = (width - cut_width) // 2, (height - cut_height) // 2
    return (left, top, left + cut_width, top + cut_height)


def training_reduction(preprocess: Preprocess, augment: Augment) -> Reduce | None:
    """How small a photograph may be decoded so that even the smallest cut is resized downwards by the margin.

    None where it may not: views of the evaluation crop stay exact, and the filter `nearest` would see another
    picture.
    """
    if augment.min_area >= 1.0 or augment.random_interpolation:
        return None
    wanted = REDUCTION_MARGIN * max(preprocess.width, preprocess.height)
    narrowest = min(augment.aspect[0], 1.0 / augment.aspect[1])

    def reduce(width: int, height: int) -> int:
        shortest = min(width, height)
        side = min(math.sqrt(augment.min_area * width * height * narrowest), shortest)
        return max(math.ceil(shortest * wanted / max(side, 1.0)), 1)

    return reduce


def cut_view(photo: Photo, preprocess: Preprocess, augment: Augment, numbers: Uniforms, out: Images) -> None:
    """Write a random cut of `photo`, resized, recoloured and perhaps mirrored, into `out`.

    Args:
        photo: the image.
        preprocess: shape and colours of the view; its resize rule is not used.
        augment: with `min_area` below 1.
        numbers: one row of `view_numbers`.
        out: uint8 in_chans x height x width, contiguous; overwritten.
    """
    left, top, right, bottom = random_box(photo.size, augment, numbers)
    pixels = photo.rows(bottom)[top:bottom, left:right]
    name = _FILTERS[int(numbers[_FILTER] * len(_FILTERS))] if augment.random_interpolation else "bilinear"
    mirrored = bool(augment.flip and numbers[_FLIP] < 0.5)
    coloured = out if len(out) == 3 else np.empty((3, *out.shape[1:]), dtype=np.uint8)
    _resize(pixels, name, mirrored, coloured)
    if preprocess.color == "L":
        out[0] = np.asarray(Image.fromarray(coloured.transpose(1, 2, 0)).convert("L"))
    if augment.photometric:
        _recolour(out, augment.photometric, numbers)
    if preprocess.color == "BGR":
        out[...] = out[::-1].copy()


def _resize(pixels: Images, name: FilterName, mirrored: bool, out: Images) -> None:
    """uint8 H x W x 3 in, uint8 3 x height x width out."""
    if name in ("bilinear", "bicubic"):
        resize_cut(pixels, name, mirrored, out)
        return
    size = (out.shape[2], out.shape[1])
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, RESAMPLING[name]))
    out[...] = (resized[:, ::-1] if mirrored else resized).transpose(2, 0, 1)


def _recolour(view: Images, strength: float, numbers: Uniforms) -> None:
    """Brightness, contrast and colour changed as Pillow's ImageEnhance does, in one pass and in place.

    Each of the three makes a * x + b * grey(x) + c of the value x, with its own a, b and c, and so do all of
    them one after the other. Values are rounded and cut to 0..255 once, at the end.
    """
    order = _ORDERS[int(numbers[_ORDER] * len(_ORDERS))]
    factors = (1.0 - strength + 2.0 * strength * numbers[_FACTORS : _FACTORS + 3]).tolist()
    recolour(view, *_colour_change(order, factors, mean_grey(view)))


def _colour_change(order: tuple[int, ...], factors: list[float], mean: float) -> tuple[float, float, float]:
    """Weights of a pixel's value and of its grey, and what is added; `mean` is that of the image's grey.

    In `order`, 0 is brightness (towards black), 1 contrast (towards the mean grey of the image as it then is)
    and 2 colour (towards the pixel's grey).
    """
    keep, blend, add = 1.0, 0.0, 0.0
    for kind in order:
        factor = factors[kind]
        whole, level = keep + blend, (keep + blend) * mean + add
        keep, blend = factor * keep, factor * blend
        if kind == 0:
            add = factor * add
        elif kind == 1:
            add = factor * add + (1.0 - factor) * level
        else:
            blend += (1.0 - factor) * whole
    return keep, blend, add


def move(images: Images, augment: Augment, numbers: Uniforms) -> Images:
    """Shift each image, mirror it and cut a square out of it, as its draw's numbers say.

    Args:
        images: uint8 N x C x H x W, left as it is.
        augment: how far and how large.
        numbers: `view_numbers` of the N draws.

    Returns:
        uint8 N x C x H x W.
    """
    count, _, height, width = images.shape
    reach_y, reach_x = round(height * augment.max_shift), round(width * augment.max_shift)
    border = ((0, 0), (0, 0), (reach_y, reach_y), (reach_x, reach_x))
    padded = np.pad(images, border, mode="reflect" if augment.reflect else "constant")
    if reach_y or reach_x:
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        down = (numbers[:, _SHIFT] * (2 * reach_y + 1)).astype(np.int64)
        across = (numbers[:, _SHIFT + 1] * (2 * reach_x + 1)).astype(np.int64)
        padded = windows[np.arange(count), :, down, across]
    if augment.flip:
        mirrored = numbers[:, _FLIP] < 0.5
        padded[mirrored] = padded[mirrored][..., ::-1]
    if augment.cutout:
        rows, columns = (
            np.abs(np.arange(side) + 0.5 - numbers[:, _CUTOUT + axis, None] * side)
            < augment.cutout * side / 2
            for axis, side in enumerate((height, width))
        )
        np.copyto(padded, 0, where=(rows[:, :, None] & columns[:, None, :])[:, None])
    return padded
