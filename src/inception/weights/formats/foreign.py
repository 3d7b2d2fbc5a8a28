"""What every reader of foreign weights gives, and the checks that they share."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inception.errors import WeightsError

SLACK_BYTES = 1 << 24
"""What a file's tensors may take beyond the file's own size (16 MB)."""
MAX_RANK = 8


@dataclass(frozen=True)
class Foreign:
    """The tensors of one file.

    Attributes:
        format: `torch`, `safetensors`, `keras`, `checkpoint`, `graph`, `caffe` or `onnx`.
        tensors: by the names of the file (`caffe` and `onnx`: `<layer>.<role>`), in the file's order and
            layout.
        layers: layers in the order of the computation, where the format knows it (`onnx`).
        notes: what was done while reading, in words (averaged weights taken, checksums verified).
    """

    format: str
    tensors: Mapping[str, Tensor]
    layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


class Allowance:
    """How many bytes the tensors of one file may take, so that no declared size is believed."""

    def __init__(self, path: Path, file_bytes: int, times: int = 1) -> None:
        self.path = path
        self.left = file_bytes * times + SLACK_BYTES

    def take(self, name: str, size: int) -> None:
        """Count `size` bytes for tensor `name`; raise WeightsError when the file cannot hold so much."""
        self.left -= size
        if size < 0 or self.left < 0:
            raise WeightsError(f"{self.path}: tensor {name} claims more bytes than the file can hold")


def checked_shape(path: Path, name: str, shape: list[int]) -> tuple[int, ...]:
    """A declared shape as a tuple; WeightsError for negative sides, too many of them, or absurd products."""
    if len(shape) > MAX_RANK or any(not 0 <= side < 1 << 40 for side in shape) or math.prod(shape) >= 1 << 40:
        raise WeightsError(f"{path}: tensor {name} has the impossible shape {shape[:MAX_RANK]}")
    return tuple(shape)


def tensor_from_bytes(
    path: Path, name: str, data: memoryview | bytes, dtype: "np.dtype | str", shape: tuple[int, ...]
) -> Tensor:
    """Little-endian numbers as a tensor of `shape` (float64 stays so, `bfloat16` becomes float32).

    Raises WeightsError when the number of bytes is not what the shape needs.
    """
    bfloat = dtype == "bfloat16"
    kind = np.dtype("<u2" if bfloat else dtype)
    if len(data) != math.prod(shape) * kind.itemsize:
        raise WeightsError(f"{path}: tensor {name} has {len(data)} bytes, not what its shape {shape} needs")
    array = np.frombuffer(data, kind).reshape(shape)
    if bfloat:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return torch.from_numpy(array.astype(kind.newbyteorder("=") if not bfloat else np.float32, copy=True))


def reading(path: Path, what: str, read: Callable[[], Foreign]) -> Foreign:
    """`read()`, with every failure that damaged bytes can cause turned into one WeightsError."""
    try:
        return read()
    except WeightsError:
        raise
    except (
        ValueError,
        LookupError,
        ArithmeticError,
        TypeError,
        RuntimeError,
        AttributeError,
        OSError,
        EOFError,
    ) as error:
        raise WeightsError(f"{path} is damaged or is not {what}: {error or type(error).__name__}") from error
