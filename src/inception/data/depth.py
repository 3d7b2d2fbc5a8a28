"""Grey values of more than 8 bits: which of them is white, and what images use of the 16 bits they have."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inception.errors import ImageError

BITS = range(8, 17)
"""The depths that can be said of images stored in 16 bits."""

_FULL = 65535
_DEPTHS = (2**8 - 1, 2**12 - 1, _FULL)
_USUAL_BITS = (8, 10, 12, 14)
_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE_VALUE, _SAMPLE_FORMAT = 0x0102, 0x0106, 0x0119, 0x0153
_NEARLY_ALL = 0.9
_ROWS_AT_ONCE = 256


def stored_in_16_bits(image: Image.Image) -> bool:
    """Whether an image that Pillow has opened, but not loaded, has 16 bits a sample and no other full range.

    Of a loaded one it is known by its mode alone.
    """
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        stated = tags.get(_MAX_SAMPLE_VALUE, (_FULL,))[0]
        unsigned = set(tags.get(_SAMPLE_FORMAT, (1,))) == {1}
        return set(tags.get(_BITS_PER_SAMPLE, (1,))) == {16} and unsigned and stated == _FULL
    if image.mode.startswith("I;16"):
        return True
    tiles: Sequence[Any] = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ""
    if image.format == "PPM":
        return arguments == "I;16B" or (isinstance(arguments, tuple) and arguments[-1] == _FULL)
    return image.format == "PNG" and ";16" in str(arguments)


def peak(image: Image.Image) -> int | None:
    """The highest value of an image stored in 16 bits, None of others. Of colours Pillow reads 8 bits."""
    if not stored_in_16_bits(image):
        return None
    image.load()
    if image.mode.startswith("I"):
        return int(np.asarray(image).max())
    bands: Any = image.convert("RGB").getextrema()
    return max(int(high) for _, high in bands) << 8 | 255


def from_16_bit(image: Image.Image, bits: int, name: str) -> Image.Image:
    """A picture of a mode with 16 bits in 8; `bits` decides what is white, 0 leaves it to the file."""
    values = np.asarray(image).astype(np.uint32)
    full_range = _FULL
    tags: Any = getattr(image, "tag_v2", {})
    if bits:
        full_range = _white(int(values.max()), bits, name)
    elif image.format == "TIFF":
        full_range = _tiff_range(tags, int(values.max()))
    scaled = np.minimum((values * 255 + full_range // 2) // full_range, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # "white is zero", which Pillow inverts for 8 bits only
        scaled = 255 - scaled
    return Image.fromarray(scaled).convert("RGB")


def from_32_bit(image: Image.Image, bits: int, name: str) -> Image.Image:
    """A picture of 32-bit integers or floats in 8 bits."""
    values = np.asarray(image)
    if image.format == "PPM" and image.mode == "I":  # Pillow has scaled it to 16 bits
        full = _white(int(values.max()), bits, name) if bits else _FULL
        return Image.fromarray(levels(values, full)).convert("RGB")
    return Image.fromarray(levels(values)).convert("RGB")


def levels(values: NDArray[Any], full: int = 0) -> NDArray[np.uint8]:
    """Numbers of any type as levels 0..255, of the same shape.

    Args:
        values: H x W or H x W x C; what is not finite counts as 0.
        full: the value that is white. 0: 1 for floats in 0..1; else the smallest of 8, 12 and 16 bits that
            holds all values; other values, such as negative ones, are stretched from minimum to maximum.
    """
    low, high = 0.0, float(full)
    if not full:
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        low, high = (min(low, 0.0), max(high, 0.0)) if finite.size < values.size else (low, high)
        ranges = (1, *_DEPTHS) if values.dtype.kind == "f" else _DEPTHS
        fitting = next((top for top in ranges if low >= 0 and high <= top), None)
        if fitting is not None:
            low, high = 0.0, float(fitting)
    factor = 255.0 / max(high - low, 1e-300)
    found = np.empty(values.shape, np.uint8)
    for start in range(
        0, len(values), _ROWS_AT_ONCE
    ):  # in doubles all at once, it would take eight times as much
        part = np.nan_to_num(values[start : start + _ROWS_AT_ONCE].astype(np.float64), posinf=0.0, neginf=0.0)
        found[start : start + _ROWS_AT_ONCE] = np.clip(np.rint((part - low) * factor), 0, 255)
    return found


def depth_notes(peaks: Sequence[int], colour: bool, bits: int) -> list[str]:
    """What is to be said of the highest values of all images stored in 16 bits.

    Args:
        peaks: of `peak`.
        colour: whether they are colour images, of which 8 bits are read.
        bits: the depth that was given; 0 for none.
    """
    if not peaks:
        return []
    kind = "16-bit colour images" if colour else "16-bit images"
    remedy = "--bits {} uses the full range"
    if colour:
        remedy = "they come out dark, as 8 of their bits are read: multiply their values by {1}"
    fitting = _fitting(max(peaks))
    if fitting is not None:
        text = f"{len(peaks)} of {len(peaks)} {kind} hold values up to {2**fitting - 1} only: "
        return [] if fitting == bits else [text + remedy.format(fitting, 2 ** (16 - fitting))]
    few = sum(value < 2**12 for value in peaks)
    if bits or few < _NEARLY_ALL * len(peaks):
        return []
    return [
        f"{few} of {len(peaks)} {kind} hold values up to {2**12 - 1} only, and are dark beside the others: "
        "are they of 12 bits?"
    ]


def _fitting(highest: int) -> int | None:
    return next((bits for bits in _USUAL_BITS if highest < 2**bits), None)


def _white(highest: int, bits: int, name: str) -> int:
    top = 2**bits - 1
    if highest > top:
        raise ImageError(
            "format",
            f"{name} holds values up to {highest:,}, and {bits} bits (--bits) end at {top:,}; convert it.",
        )
    return int(top)


def _tiff_range(tags: Any, highest: int) -> int:
    """The value that means white: as the tags say, else by the depth that cameras and scanners have."""
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    if 8 < bits < 16:
        return int(2**bits - 1)
    stated = tags.get(_MAX_SAMPLE_VALUE, (0,))[0]
    if 255 <= stated <= _FULL:
        return int(stated)
    # 12-bit microscopes and scanners write 16-bit files, which would come out all but black.
    return next(top for top in _DEPTHS if highest <= top)
