"""Kernels in the engine's order; minimal filtering against convolution by its definition."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inception.runtime.native import packing

CASES = [(4, 3), (6, 3), (6, 5), (10, 7)]


def product(roots):
    """The coefficients, lowest first, of the product of x - root."""
    result = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *result], [root * value for value in (*result, Fraction(0))]
        result = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return result


@pytest.mark.parametrize(("points", "taps"), CASES)
def test_the_points_give_convolution(points, taps):
    """Toom and Cook in exact fractions, with the transform of the kernel that the engine is given."""
    finite = [Fraction(0), *(Fraction(s) * Fraction(p) for p in packing.POINTS[points] for s in (1, -1))]
    assert len(finite) == points - 1
    rows = [[*product(finite[:i] + finite[i + 1 :]), Fraction(0)] for i in range(points - 1)]
    data_transform = np.array([*rows, product(finite)], dtype=float)
    outputs = points - taps + 1
    output_transform = np.array([[float(p**power) for p in finite] + [0.0] for power in range(outputs)])
    output_transform[-1, -1] = 1.0
    generator = np.random.default_rng(0)
    data, kernel = generator.normal(size=points), generator.normal(size=taps)
    found = output_transform @ ((packing.kernel_transform(points, taps) @ kernel) * (data_transform @ data))
    expected = [data[start : start + taps] @ kernel for start in range(outputs)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("outputs", [16, 32, 48, 80])
def test_groups_hold_every_weight_where_the_engine_reads_it(outputs, pairs):
    rows = np.arange(6 * outputs, dtype=np.float32).reshape(6, outputs)
    flat = packing.grouped(rows, pairs)
    assert flat.size == rows.size
    for output in (0, 15, outputs - 16, outputs - 1):
        start = output // 32 * 32
        width = min(32, outputs - start)
        for row in range(6):
            line, side = (row // 2, row % 2) if pairs else (row, 0)
            at = (line * width + output - start) * (2 if pairs else 1) + side
            assert flat[6 * start + at] == rows[row, output]


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1))
def test_bfloat16_is_rounded_as_pytorch_does(values):
    array = np.array(values, dtype=np.float32)
    expected = torch.from_numpy(array).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(packing.to_bfloat16(array), expected)


def test_padding_keeps_values_and_adds_zeros():
    values = np.ones((2, 3), dtype=np.float32)
    found = packing.padded(values, [0, 2, 5], 6, axis=1)
    assert found.sum(axis=0).tolist() == [2, 0, 2, 0, 0, 2]
