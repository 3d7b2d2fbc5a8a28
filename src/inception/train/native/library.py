"""The kernels in C beside this file, as functions."""

import ctypes
from functools import cache
from pathlib import Path

import torch

from inception.native.compiler import KernelError, Signature, Sources, compiled
from inception.runtime.native.runner import HEADERS as ENGINE_HEADERS

_POINTER, _LONG, _INT, _DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double
_SIGNATURES: dict[str, Signature] = {
    "norm_relu_forward": (
        _INT,
        [_POINTER, _LONG, _LONG, _LONG, _INT, *[_POINTER] * 4, _DOUBLE, _DOUBLE, _POINTER, _POINTER, _INT],
    ),
    "norm_relu_backward": (
        _INT,
        [_POINTER, _LONG, _POINTER, _LONG, _LONG, _LONG, _INT, *[_POINTER] * 4, _INT],
    ),
    "max_pool_forward": (_INT, [_POINTER, _LONG, _POINTER, _INT, _POINTER, _POINTER, _INT]),
    "max_pool_backward": (None, [_POINTER, _LONG, _POINTER, _POINTER, _INT, _POINTER, _INT]),
    "filtered_float32": (_INT, [_POINTER, _LONG, *[_POINTER] * 4, _INT]),
    "filtered_bfloat16": (_INT, [_POINTER, _LONG, *[_POINTER] * 4, _INT]),
    "has_filtered_bfloat16": (_INT, []),
}
_HERE = Path(__file__).parent
_UNITS = ("norm_relu", "max_pool", "filtered_float32", "filtered_bfloat16")
SOURCES = Sources(
    name="kernels",
    files=tuple(_HERE / f"{name}.c" for name in _UNITS),
    headers=(_HERE / "filtered.h", *ENGINE_HEADERS),
    flags=("-fopenmp",),
    signatures=_SIGNATURES,
)


def library() -> ctypes.CDLL:
    """The compiled kernels. Raises KernelError with the reason they cannot be had."""
    kernels, reason = _outcome()
    if kernels is None:
        raise KernelError(reason)
    return kernels


def reason_without(device: str = "cpu") -> str:
    """Why the kernels cannot be had here, on a device of this type; empty where they can."""
    return _outcome()[1] if device == "cpu" else f"they are for CPUs, and the run is on {device}"


@cache
def _outcome() -> tuple[ctypes.CDLL | None, str]:
    """The kernels, or the reason there are none; tried once in a process."""
    try:
        kernels = compiled(SOURCES)
    except KernelError as error:
        return None, str(error)
    # A second OpenMP would have threads of its own, and those of PyTorch's would spin against them.
    if not _openmp_file(kernels).is_relative_to(Path(torch.__file__).parent):
        return None, "PyTorch brings an OpenMP that gcc's code does not find"
    return kernels, ""


def _openmp_file(kernels: ctypes.CDLL) -> Path:
    """Where the OpenMP comes from that the kernels run on."""
    address = ctypes.cast(kernels.GOMP_parallel, ctypes.c_void_p).value or 0
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, *_, path = line.split(maxsplit=5)
        first, last = (int(edge, 16) for edge in span.split("-"))
        if first <= address < last:
            return Path(path)
    return Path()
