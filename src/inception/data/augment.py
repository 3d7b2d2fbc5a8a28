"""Training-time views of an image: each drawn from an explicit generator, so that a run can be repeated."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from inception.data.preprocess import RESAMPLING, Preprocess, to_tensor

AugmentName = Literal["none", "shift", "cutout", "crop", "paper"]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Augment:
    """How training views differ from the evaluation view.

    Attributes:
        min_area: smallest share of the image's area a view shows; 1.0 keeps the evaluation crop.
        aspect: least and greatest width / height of the cut, before it is resized to the network's shape.
        random_interpolation: draw the resampling filter (bilinear, box, nearest, bicubic) for each view.
        photometric: strength s of brightness, contrast and colour changes, each a factor in 1-s .. 1+s, in
            random order (Howard 2013); 0 for none.
        max_shift: greatest shift in each direction as a share of the side, the border filled with zeros.
        flip: mirror half of the views left to right.
        cutout: side of a square of zeros as a share of the view's side, its centre anywhere (DeVries and
            Taylor 2017); 0 for none.
    """

    min_area: float = 1.0
    aspect: tuple[float, float] = (1.0, 1.0)
    random_interpolation: bool = False
    photometric: float = 0.0
    max_shift: float = 0.0
    flip: bool = True
    cutout: float = 0.0


# `paper` is section 6 of Szegedy et al. 2015; `crop` a milder one for fine-tuning; `shift` for small images,
# with `cutout` where there are many.
AUGMENTS: dict[AugmentName, Augment] = {
    "none": Augment(flip=False),
    "shift": Augment(max_shift=0.125),
    "cutout": Augment(max_shift=0.125, cutout=0.25),
    "crop": Augment(min_area=0.35, aspect=(3 / 4, 4 / 3), photometric=0.2),
    "paper": Augment(min_area=0.08, aspect=(3 / 4, 4 / 3), random_interpolation=True, photometric=0.4),
}
_FILTERS = ("bilinear", "box", "nearest", "bicubic")
_ENHANCERS: tuple[Callable[[Image.Image], ImageEnhance._Enhance], ...] = (
    ImageEnhance.Brightness,
    ImageEnhance.Contrast,
    ImageEnhance.Color,
)


def view_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of sample `index`'s view in `epoch`: the same whatever thread or process draws it."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, index))))


def random_box(size: tuple[int, int], augment: Augment, rng: np.random.Generator) -> Box:
    """A random cut (left, top, right, bottom) of an image of `size` (width, height), in pixels.

    Area uniform in min_area..1 of the image, log-uniform aspect; after ten cuts that do not fit, the
    largest centred cut with an allowed aspect.
    """
    width, height = size
    low, high = math.log(augment.aspect[0]), math.log(augment.aspect[1])
    for _ in range(10):
        area = width * height * rng.uniform(augment.min_area, 1.0)
        aspect = math.exp(rng.uniform(low, high))
        cut_width, cut_height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if cut_width <= width and cut_height <= height:
            left, top = rng.uniform(0, width - cut_width), rng.uniform(0, height - cut_height)
            return (left, top, left + cut_width, top + cut_height)
    aspect = min(max(width / height, augment.aspect[0]), augment.aspect[1])
    cut_width, cut_height = min(width, height * aspect), min(height, width / aspect)
    left, top = (width - cut_width) / 2, (height - cut_height) / 2
    return (left, top, left + cut_width, top + cut_height)


def augmented_view(
    image: Image.Image, preprocess: Preprocess, augment: Augment, rng: np.random.Generator
) -> Tensor:
    """A random training view: PIL image (mode RGB) in, uint8 in_chans x height x width out."""
    if augment.min_area < 1.0:
        name = _FILTERS[rng.integers(len(_FILTERS))] if augment.random_interpolation else "bilinear"
        box = random_box(image.size, augment, rng)
        image = image.resize((preprocess.width, preprocess.height), RESAMPLING[name], box=box)
        if augment.photometric:
            image = _distort(image, augment.photometric, rng)
        tensor = to_tensor(image, preprocess.color)
    else:
        tensor = preprocess.apply(image)
    return shift_and_flip(tensor[None], augment, [rng])[0]


def _distort(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    for index in rng.permutation(len(_ENHANCERS)):
        image = _ENHANCERS[index](image).enhance(rng.uniform(1.0 - strength, 1.0 + strength))
    return image


def shift_and_flip(images: Tensor, augment: Augment, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Shift, mirror and cut a square out of each image as its own generator says.

    uint8 N x C x H x W in, the same out.
    """
    _, _, height, width = images.shape
    reach_y, reach_x = round(height * augment.max_shift), round(width * augment.max_shift)
    rows = np.empty((len(rngs), height), dtype=np.int64)
    columns = np.empty((len(rngs), width), dtype=np.int64)
    centres = np.zeros((2, len(rngs), 1))
    for index, rng in enumerate(rngs):
        dy = rng.integers(-reach_y, reach_y + 1) if augment.max_shift else 0
        dx = rng.integers(-reach_x, reach_x + 1) if augment.max_shift else 0
        rows[index] = np.arange(height) + reach_y - dy
        columns[index] = np.arange(width) + reach_x - dx
        if augment.flip and rng.random() < 0.5:
            columns[index] = columns[index, ::-1]
        if augment.cutout:
            centres[:, index, 0] = rng.uniform(0, height), rng.uniform(0, width)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (reach_y, reach_y), (reach_x, reach_x)))
    first = np.arange(len(rngs))[:, None, None]
    # Advanced indices around the channel slice put the channels last.
    views = padded[first, :, rows[:, :, None], columns[:, None, :]]
    if augment.cutout:
        down = np.abs(np.arange(height) + 0.5 - centres[0]) < augment.cutout * height / 2
        across = np.abs(np.arange(width) + 0.5 - centres[1]) < augment.cutout * width / 2
        views[down[:, :, None] & across[:, None, :]] = 0
    return torch.from_numpy(views).permute(0, 3, 1, 2).contiguous()
