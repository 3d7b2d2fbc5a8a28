"""What weights expect of an image: each network's published ones, and what a person says of others."""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from inception.data.preprocess import CHANNELS, IMAGENET_MEAN, IMAGENET_STD, Preprocess
from inception.errors import UsageError
from inception.files import read_regular
from inception.nets.classics import VGG_DEPTHS

# Caffe: BGR bytes less the mean of ImageNet's training images.
CAFFE = Preprocess(color="BGR", value_range=255.0, mean=(104.0, 117.0, 123.0), std=(1.0,) * 3)
# torchvision: shorter side to size / 0.875, centre crop, ImageNet's mean and deviation.
TORCHVISION = Preprocess(resize="shortest", crop_fraction=0.875)
# TF-slim: pixels to -1..1. torchvision's GoogLeNet and Inception-v3 get there too: their `transform_input`
# turns ImageNet's normalisation into this one.
SLIM = replace(TORCHVISION, mean=(0.5,) * 3, std=(0.5,) * 3)
SLIM_299 = replace(SLIM, height=299, width=299, interpolation="bicubic")

# Sources: the DeepDream release (inception5h); Caffe's train_val files; Cadene's BN-Inception (its mean has
# 128 for red, where Caffe's others have 123); TF-slim's inception_preprocessing; torchvision's weights.
PREPROCESSING: Mapping[str, Preprocess] = {
    "googlenet": CAFFE,
    "googlenet_5h": Preprocess(value_range=255.0, mean=(117.0,) * 3, std=(1.0,) * 3),
    "googlenet_bn": Preprocess(),
    "googlenet_tv": SLIM,
    "inception_v2": SLIM,
    "inception_v2_caffe": replace(CAFFE, mean=(104.0, 117.0, 128.0)),
    "inception_v3": replace(SLIM_299, interpolation="bilinear"),
    "inception_v4": SLIM_299,
    "inception_resnet_v1": SLIM_299,
    "inception_resnet_v2": SLIM_299,
    "inception_resnet_v2_paper": SLIM_299,
    "inception_small": Preprocess(height=32, width=32),
    "lenet5": Preprocess(height=28, width=28),
    "nin": CAFFE,
    "alexnet": replace(CAFFE, height=227, width=227),
    "alexnet_tv": TORCHVISION,
    **dict.fromkeys(VGG_DEPTHS, TORCHVISION),
    **{f"{name}_bn": TORCHVISION for name in VGG_DEPTHS},
}

NAMED: Mapping[str, Mapping[str, Any]] = {
    "imagenet": {"color": "RGB", "value_range": 1.0, "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
    "inception": {"color": "RGB", "value_range": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3},
    "caffe": {"color": "BGR", "value_range": 255.0, "mean": CAFFE.mean, "std": CAFFE.std},
    "none": {"color": "RGB", "value_range": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3},
}
"""Names for what happens to the pixels; size and resize rule stay the tool's."""
FILE_LIMIT_BYTES = 1 << 20
_LARGEST_SCALED = 2.0
"""A mean or deviation above this is one of bytes (0..255), not of 0..1."""


@dataclass(frozen=True)
class PreprocessChanges:
    """What a person says of the preprocessing, where weights were trained with another than the tool's usual.

    Attributes:
        named: one of `NAMED`, or a JSON or TOML file with fields of `Preprocess`.
        mean, std: numbers, one a channel or one for all, of pixels in 0..1 (above 2: of bytes).
        size: `224`, or height and width: `224x320`.
    """

    named: str | None = None
    mean: str | None = None
    std: str | None = None
    size: str | None = None

    def apply(self, usual: Preprocess) -> Preprocess:
        """`usual` with the changes. Raises UsageError for what cannot be read or is impossible."""
        changed: dict[str, Any] = dict(_named(self.named)) if self.named else {}
        if usual.color == "L" and changed.get("color", "L") != "L":
            grey = as_grey(Preprocess.from_dict(changed))
            changed |= {"color": grey.color, "mean": grey.mean, "std": grey.std}
        result = Preprocess.from_dict({**asdict(usual), **changed})
        if self.mean is not None or self.std is not None:
            result = _normalised(result, self.mean, self.std)
        if self.size is not None:
            height, width = _sides(self.size)
            result = replace(result, height=height, width=width)
        return result

    @property
    def of_pixels(self) -> bool:
        """Whether it says more than the size."""
        return any(value is not None for value in (self.named, self.mean, self.std))


def as_grey(preprocess: Preprocess) -> Preprocess:
    """The same for one grey channel: mean and deviation are the channels' averages."""
    if preprocess.color == "L":
        return preprocess
    return replace(preprocess, color="L", mean=(fmean(preprocess.mean),), std=(fmean(preprocess.std),))


def in_words(preprocess: Preprocess) -> str:
    """`224 x 224 RGB, mean 0.5, std 0.5`."""

    def numbers(values: tuple[float, ...]) -> str:
        return " ".join(f"{value:g}" for value in (values[:1] if len(set(values)) == 1 else values))

    scale = "" if preprocess.value_range == 1.0 else " of bytes"
    return (
        f"{preprocess.height} x {preprocess.width} {preprocess.color}, mean {numbers(preprocess.mean)}, "
        f"std {numbers(preprocess.std)}{scale}"
    )


def _named(name: str) -> Mapping[str, Any]:
    if name in NAMED:
        return NAMED[name]
    path = Path(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, NAMED, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UsageError(f"--preprocess takes a file or one of {', '.join(NAMED)}, not '{name}'{hint}")
    try:
        text = read_regular(path, FILE_LIMIT_BYTES).decode("utf-8")
        content = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON or TOML: {error}") from error
    values = content.get("preprocess", content) if isinstance(content, dict) else None
    known = [field.name for field in fields(Preprocess)]
    if not isinstance(values, dict) or not values or not values.keys() <= set(known):
        unknown = sorted(map(str, values.keys() - set(known))) if isinstance(values, dict) else []
        what = f"has unknown fields ({', '.join(unknown[:3])})" if unknown else "has no fields"
        raise UsageError(f"{path} {what}: the fields of preprocessing are {', '.join(known)}")
    channels = CHANNELS.get(values.get("color", "RGB"), 3) if isinstance(values.get("color", ""), str) else 3
    one = {key: values[key] for key in ("mean", "std") if isinstance(values.get(key), int | float)}
    return {**values, **{key: (number,) * channels for key, number in one.items()}}


def _normalised(preprocess: Preprocess, mean: str | None, std: str | None) -> Preprocess:
    """`preprocess` with another mean and deviation; large ones are of bytes."""
    channels = preprocess.in_chans
    given = {"mean": _numbers("--mean", mean, channels), "std": _numbers("--std", std, channels)}
    values = {key: numbers for key, numbers in given.items() if numbers is not None}
    value_range = 255.0 if any(abs(n) > _LARGEST_SCALED for one in values.values() for n in one) else 1.0
    if len(values) == 1 and value_range != preprocess.value_range:
        other = "--std" if "mean" in values else "--mean"
        raise UsageError(f"--mean and --std must be of the same range of pixels: give {other} too")
    return Preprocess.from_dict({**asdict(preprocess), "value_range": value_range, **values})


def _numbers(option: str, text: str | None, channels: int) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in re.split(r"[,;\s]+", text.strip("[]() ")))
    except ValueError as error:
        raise UsageError(f"{option} takes numbers such as 0.485,0.456,0.406, not '{text}'") from error
    numbers = numbers * channels if len(numbers) == 1 else numbers
    if len(numbers) != channels:
        raise UsageError(f"{option} takes 1 or {channels} numbers, one a channel, not {len(numbers)}")
    return numbers


def _sides(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,5})\s*(?:[x,×]\s*(\d{1,5}))?\s*", text)
    if match is None:
        raise UsageError(f"--size takes pixels such as 224, or height x width such as 224x320, not '{text}'")
    return int(match[1]), int(match[2] or match[1])
