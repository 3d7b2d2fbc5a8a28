"""Kernels in the order in which the native engine reads them."""

import numpy as np
from numpy.typing import NDArray

from inception.runtime.native.layers import LANES

Floats = NDArray[np.float32]

POINTS: dict[int, tuple[float, ...]] = {4: (1.0,), 6: (0.75, 1.5), 10: (0.5, 0.75, 1.25, 2.0)}
"""Those of `winograd.c`, with both signs beside 0 and infinity, by their number."""


def kernel_transform(points: int, taps: int) -> NDArray[np.float64]:
    """points x taps: a row of `taps` weights as the values of a polynomial at the points of Toom and Cook.

    A row for the point a is (1, a, a^2, ...) divided by the product of its distances from the other points.
    """
    if points == 1:
        return np.ones((1, 1))
    finite = [0.0, *(sign * point for point in POINTS[points] for sign in (1.0, -1.0))]
    rows = [
        [
            point**power / np.prod([point - other for other in finite if other != point])
            for power in range(taps)
        ]
        for point in finite
    ]
    return np.array([*rows, [0.0] * (taps - 1) + [1.0]])


def blocks(channels: int) -> int:
    """Blocks of 16 channels that hold so many."""
    return -(channels // -LANES)


def blocks_of(slots: list[int]) -> int:
    """Blocks that hold channels at these places."""
    return blocks(max(slots) + 1)


def padded(values: Floats, slots: list[int], count: int, axis: int) -> Floats:
    """`values` with those of `axis` moved to `slots` of `count`, zeros between."""
    shape = list(values.shape)
    shape[axis] = count
    result = np.zeros(shape, dtype=values.dtype)
    index: list[slice | list[int]] = [slice(None)] * values.ndim
    index[axis] = slots
    result[tuple(index)] = values
    return result


def grouped(rows: Floats, pairs: bool) -> Floats:
    """A matrix inputs x outputs as groups of 32 outputs (the last maybe of 16), one after the other.

    With `pairs`, two inputs stand side by side for every output, as bfloat16 products take them.
    """
    inputs, outputs = rows.shape
    if pairs:
        rows = rows.reshape(inputs // 2, 2, outputs).transpose(0, 2, 1)
    whole = outputs // (2 * LANES) * 2 * LANES
    parts = [rows[:, start : start + 2 * LANES] for start in range(0, whole, 2 * LANES)]
    parts += [rows[:, whole:]] if whole < outputs else []
    return np.concatenate([np.ascontiguousarray(part).reshape(-1) for part in parts])


def direct(kernel: Floats, pairs: bool) -> Floats:
    """out x in x rows x columns, both channels whole blocks, as `convolution.c` reads it."""
    outputs, inputs, rows, columns = kernel.shape
    ordered = kernel.reshape(outputs, inputs // LANES, LANES, rows, columns).transpose(1, 3, 4, 2, 0)
    return grouped(ordered.reshape(-1, outputs), pairs)


def interleaved(kernel: Floats, depth: int, pairs: bool) -> Floats:
    """out x channels x rows x columns over pixels of `depth` interleaved values."""
    outputs, channels, rows, columns = kernel.shape
    deep = padded(kernel, list(range(channels)), depth, axis=1)
    lines = deep.transpose(2, 3, 1, 0).reshape(rows, columns * depth, outputs)
    if pairs and columns * depth % 2:
        lines = np.concatenate([lines, np.zeros_like(lines[:, :1])], axis=1)
    return grouped(lines.reshape(-1, outputs), pairs)


def winograd(kernel: Floats, points: tuple[int, int], pairs: bool) -> Floats:
    """out x in x rows x columns transformed: one matrix in x out for each position of the tile."""
    down, across = (
        kernel_transform(count, taps) for count, taps in zip(points, kernel.shape[2:], strict=True)
    )
    positions = np.einsum("ia,ocab,jb->ijco", down, kernel.astype(np.float64), across, optimize=True)
    flat = positions.reshape(-1, *positions.shape[2:]).astype(np.float32)
    return np.concatenate([grouped(matrix, pairs) for matrix in flat])


def to_bfloat16(values: Floats) -> NDArray[np.uint16]:
    """Rounded to the nearest, ties to even; finite values only."""
    bits = values.astype(np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return nearest.astype(np.uint16)
