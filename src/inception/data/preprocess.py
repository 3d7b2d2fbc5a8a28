"""Preprocessing as one frozen value: stored in the bundle, used the same way at every step.

It has two halves. `apply` makes a uint8 tensor from an image (resize, crop, colour order); `normalize` makes
floats from a batch of those. Between the two, images stay 8-bit: small to cache and cheap to send.

PyTorch is imported where tensors are made: an optimised bundle answers without it.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inception.data.depth import BITS
from inception.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

ResizeRule = Literal["crop", "shortest", "squash", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box"]
Color = Literal["RGB", "BGR", "L"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
CHUNK_VALUES = 1 << 17
"""Values normalised at a time on a CPU: half a megabyte of float32."""
CHANNELS = {"RGB": 3, "BGR": 3, "L": 1}
MAX_SIDE = 4096
MOST = 1e4
"""Beyond it, numbers of mean and std (and below its inverse) give answers that are not numbers."""
MAX_RESIZED_PIXELS = 1 << 26
"""The rule `shortest` makes no intermediate picture larger than this (200 MB)."""


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the network's input.

    Attributes:
        height, width: pixels the network sees, in 1..4096.
        resize: `crop` cuts the centre rectangle of the target's shape (times `crop_fraction`) and resizes it
            once (at the edges the filter looks past the cut); `shortest` resizes the shorter side to
            target / crop_fraction, then cuts the centre (torchvision's and timm's order); `squash` ignores
            the aspect ratio; `pad` fits the whole image in and fills the rest with `fill`.
        crop_fraction: share of the image's largest fitting centre rectangle that is seen, in 0.01..1.
        interpolation: resampling filter, always antialiased (Pillow's convention).
        color: channel order, or `L` for one grey channel.
        value_range: what the byte 255 becomes before mean and std: 1.0 or 255.0.
        mean, std: per channel, in units of `value_range`; in -10000..10000 and 0.0001..10000.
        fill: byte value of the padding of `pad`, in 0..255.
        bits: depth of the values of grey images stored in 16 bits, as for `decode_image`.
    """

    height: int = 224
    width: int = 224
    resize: ResizeRule = "crop"
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bilinear"
    color: Color = "RGB"
    value_range: float = 1.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    fill: int = 128
    bits: int = 0

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if isinstance(values, str) or any(isinstance(value, str | bool) for value in values):
                raise UsageError(
                    f"the preprocessing has values this version cannot use: {name} must be numbers"
                )
            object.__setattr__(self, name, tuple(float(value) for value in values))
        _check(self)

    @property
    def in_chans(self) -> int:
        """Channels of the tensors it makes."""
        return CHANNELS[self.color]

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """A PIL image (mode RGB) in, uint8 array in_chans x height x width out, values 0..255."""
        return to_array(self._resized(image), self.color)

    def apply(self, image: Image.Image) -> "Tensor":
        """As `pixels`, as a tensor."""
        import torch

        return torch.from_numpy(self.pixels(image))

    def normalize(self, batch: "Tensor") -> "Tensor":
        """uint8 N x C x H x W in, float32 out: (batch / 255 * value_range - mean) / std."""
        import torch

        std = torch.tensor(self.std, dtype=torch.float64)
        scale = (self.value_range / 255.0 / std).to(torch.float32)
        shift = (-torch.tensor(self.mean, dtype=torch.float64) / std).to(torch.float32)
        scale, shift = (values.view(1, -1, 1, 1).to(batch.device) for values in (scale, shift))
        if batch.dtype != torch.uint8 or batch.device.type != "cpu":
            return batch.to(torch.float32) * scale + shift
        # The same, a few images at a time: what fits the cache waits neither for memory nor for new pages.
        images = max(CHUNK_VALUES // max(batch[:1].numel(), 1), 1)
        result = torch.empty(batch.shape)
        for start in range(0, len(batch), images):
            part = batch[start : start + images].to(torch.float32)
            torch.mul(part, scale, out=result[start : start + images]).add_(shift)
        return result

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form, read back by `from_dict`."""
        values = {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
        if not self.bits:  # as in bundles that are older than it
            del values["bits"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        """Inverse of `to_dict`. Raises UsageError for unknown fields or impossible values."""
        try:
            return cls(**values)
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"the preprocessing has values this version cannot use: {error}") from error

    def _resized(self, image: Image.Image) -> Image.Image:
        size, filter_ = (self.width, self.height), RESAMPLING[self.interpolation]
        if self.resize == "squash":
            return image if image.size == size else image.resize(size, filter_)
        if self.resize == "pad":
            return self._padded(image)
        if self.resize == "shortest":
            return self._shortest_then_crop(image)
        box = center_box(image.size, size, self.crop_fraction)
        if image.size == size and box == (0.0, 0.0, *map(float, size)):
            return image
        return image.resize(size, filter_, box=box)

    def _shortest_then_crop(self, image: Image.Image) -> Image.Image:
        target_width = max(round(self.width / self.crop_fraction), self.width)
        target_height = max(round(self.height / self.crop_fraction), self.height)
        factor = max(target_width / image.width, target_height / image.height)
        resized = (
            max(int(image.width * factor + 1e-6), target_width),
            max(int(image.height * factor + 1e-6), target_height),
        )
        left, top = round((resized[0] - self.width) / 2), round((resized[1] - self.height) / 2)
        filter_ = RESAMPLING[self.interpolation]
        if resized[0] * resized[1] > MAX_RESIZED_PIXELS:
            # A picture of extreme shape: compute only what the cut shows (equal but for rounding).
            step_x, step_y = image.width / resized[0], image.height / resized[1]
            box = (left * step_x, top * step_y, (left + self.width) * step_x, (top + self.height) * step_y)
            return image.resize((self.width, self.height), filter_, box=box)
        image = image.resize(resized, filter_)
        return image.crop((left, top, left + self.width, top + self.height))

    def _padded(self, image: Image.Image) -> Image.Image:
        factor = min(self.width / image.width, self.height / image.height)
        inner = (max(round(image.width * factor), 1), max(round(image.height * factor), 1))
        canvas = Image.new("RGB", (self.width, self.height), (self.fill,) * 3)
        place = ((self.width - inner[0]) // 2, (self.height - inner[1]) // 2)
        canvas.paste(image.resize(inner, RESAMPLING[self.interpolation]), place)
        return canvas


def center_box(
    image_size: tuple[int, int], target: tuple[int, int], fraction: float
) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the centre rectangle with the target's aspect ratio.

    Sizes are (width, height) in pixels. The rectangle is the largest that fits, times `fraction`. Edges
    fall on whole pixels at fraction 1, so that a square crop is the one a person would cut.
    """
    scale = min(image_size[0] / target[0], image_size[1] / target[1]) * fraction
    width, height = target[0] * scale, target[1] * scale
    left, top = (image_size[0] - width) / 2, (image_size[1] - height) / 2
    if fraction == 1.0:
        left, top = float(int(left)), float(int(top))
    return (left, top, min(left + width, image_size[0]), min(top + height, image_size[1]))


def to_array(image: Image.Image, color: Color) -> NDArray[np.uint8]:
    """A PIL image (mode RGB) in, uint8 array C x H x W out in the given channel order."""
    if color == "L":
        return np.array(image.convert("L"), dtype=np.uint8)[None]
    array = np.asarray(image, dtype=np.uint8)
    if color == "BGR":
        array = array[:, :, ::-1]
    return np.array(array.transpose(2, 0, 1), order="C")


def to_tensor(image: Image.Image, color: Color) -> "Tensor":
    """As `to_array`, as a tensor."""
    import torch

    return torch.from_numpy(to_array(image, color))


def _check(preprocess: Preprocess) -> None:
    sides = (preprocess.height, preprocess.width)
    fractions = (preprocess.crop_fraction, preprocess.value_range)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in fractions)
    problems = {
        f"height and width must be whole numbers in 1..{MAX_SIDE}": not all(
            type(side) is int and 1 <= side <= MAX_SIDE for side in sides
        ),
        f"resize must be crop, shortest, squash or pad, not {preprocess.resize!r:.60}": preprocess.resize
        not in ("crop", "shortest", "squash", "pad"),
        f"interpolation must be one of {', '.join(RESAMPLING)}": preprocess.interpolation not in RESAMPLING,
        f"color must be one of {', '.join(CHANNELS)}": preprocess.color not in CHANNELS,
        "crop_fraction and value_range must be numbers": not numbers,
        "crop_fraction must be in 0.01..1": numbers and not 0.01 <= preprocess.crop_fraction <= 1.0,
        "value_range must be 1.0 or 255.0": preprocess.value_range not in (1.0, 255.0),
        "fill must be a whole number in 0..255": type(preprocess.fill) is not int
        or not 0 <= preprocess.fill <= 255,
        "bits must be 0 or a whole number in 8..16": type(preprocess.bits) is not int
        or (preprocess.bits != 0 and preprocess.bits not in BITS),
        f"std must be positive, in {1.0 / MOST}..{MOST:.0f}": not all(
            1.0 / MOST <= value <= MOST for value in preprocess.std
        ),
        f"mean must be finite, in -{MOST:.0f}..{MOST:.0f}": not all(
            abs(value) <= MOST for value in preprocess.mean
        ),
    }
    channels = CHANNELS.get(preprocess.color, len(preprocess.mean))
    problems[f"mean and std need {channels} values, one a channel"] = not (
        len(preprocess.mean) == len(preprocess.std) == channels
    )
    for message, wrong in problems.items():
        if wrong:
            raise UsageError(f"impossible preprocessing: {message}")
