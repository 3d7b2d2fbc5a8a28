"""What is done to each cut of a photograph: resized and recoloured, in C where it can be compiled.

Without a C compiler PyTorch and NumPy do the same, to the bit, and take longer.
"""

import ctypes
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from inception.native.compiler import KernelError, Sources, compiled

Images = NDArray[np.uint8]
CutFilter = Literal["bilinear", "bicubic"]
LUMA = (0.299, 0.587, 0.114)

_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_HERE = Path(__file__).parent
SOURCES = Sources(
    name="cuts",
    files=(_HERE / "resize.c", _HERE / "colours.c"),
    headers=(),
    flags=("-ffp-contract=off",),  # or sums would be rounded otherwise than PyTorch and NumPy do
    signatures={
        "resize": (_INT, [_POINTER, _LONG, _INT, _INT, _POINTER, *[_INT] * 4]),
        "channel_sums": (None, [_POINTER, _INT, _LONG, _POINTER]),
        "recolour": (None, [_POINTER, _INT, _LONG, _POINTER, _POINTER]),
    },
)


_lock = Lock()


def library() -> ctypes.CDLL | None:
    """The compiled functions, or None where there can be none; tried once in a process."""
    with _lock:  # or every loading thread would compile them
        return _outcome()


@cache
def _outcome() -> ctypes.CDLL | None:
    try:
        return compiled(SOURCES)
    except KernelError:
        return None


def resize_cut(pixels: Images, filter_name: CutFilter, mirrored: bool, out: Images) -> None:
    """Resize with antialiasing, first along rows, then along columns, rounding to bytes after each.

    These are PyTorch's bytes (but for views one pixel wide, where it errs on processors without AVX2), and
    Pillow's within one level where Pillow goes along rows first as well.

    Args:
        pixels: uint8 H x W x 3, perhaps a cut of a larger array.
        filter_name: Pillow's and PyTorch's name.
        mirrored: whether left and right are exchanged.
        out: uint8 3 x height x width, contiguous; overwritten.
    """
    _require_dense(out)
    _, height, width = out.shape
    functions = library()
    if functions is not None:
        if pixels.strides[1:] != (3, 1):
            pixels = np.ascontiguousarray(pixels)
        rows, columns, _ = pixels.shape
        given = (pixels.ctypes.data, pixels.strides[0], columns, rows)
        wanted = (out.ctypes.data, width, height)
        if not functions.resize(*given, *wanted, filter_name == "bicubic", mirrored):
            raise MemoryError(f"no memory to resize {columns} x {rows} pixels")
        return
    # Given a contiguous array this runs in the calling thread alone; given a slice, it would start more
    # threads beside those that train.
    batch = torch.from_numpy(np.array(pixels, order="C")).permute(2, 0, 1)[None]
    view = F.interpolate(batch, (height, width), mode=filter_name, antialias=True)[0].numpy()
    out[...] = view[:, :, ::-1] if mirrored else view


def mean_grey(view: Images) -> float:
    """Of a contiguous view, uint8 C x H x W, the mean of its grey values, 0..255."""
    _require_dense(view)
    channels, height, width = view.shape
    sums = np.empty(channels, dtype=np.int64)
    functions = library()
    if functions is not None:
        functions.channel_sums(view.ctypes.data, channels, height * width, sums.ctypes.data)
    else:
        view.sum((1, 2), dtype=np.int64, out=sums)
    total = sum(weight * value for weight, value in zip(_grey_weights(channels), sums.tolist(), strict=True))
    mean: float = total / (height * width)
    return mean


def recolour(view: Images, keep: float, blend: float, add: float) -> None:
    """In place: keep * value + blend * grey + add, rounded, of a contiguous view, uint8 C x H x W."""
    _require_dense(view)
    channels, height, width = view.shape
    weights = np.array(_grey_weights(channels), dtype=np.float32)
    change = np.array([keep, blend, add + 0.5], dtype=np.float32)
    functions = library()
    if functions is not None:
        pointers = weights.ctypes.data, change.ctypes.data
        functions.recolour(view.ctypes.data, channels, height * width, *pointers)
        return
    values = view.astype(np.float32)
    grey = values[0] * weights[0]
    for weight, plane in zip(weights[1:], values[1:], strict=True):
        grey += weight * plane
    values *= change[0]
    values += change[1] * grey + change[2]
    np.clip(values, 0.0, 255.0, out=values)
    view[...] = values.astype(np.uint8)


def _grey_weights(channels: int) -> tuple[float, ...]:
    return LUMA if channels == 3 else (1.0,)


def _require_dense(view: Images) -> None:
    """C code writes to the array's memory as if it were so."""
    if view.dtype != np.uint8 or not (view.flags.c_contiguous and view.flags.writeable):
        raise ValueError("a view must be a writeable, contiguous array of bytes")
