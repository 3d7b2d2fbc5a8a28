"""The kernels against PyTorch's layers in double precision, and against each other with other threads."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from inception.train.native.functions import can_normalise, is_map, max_pool, norm_relu, row_stride
from inception.train.native.library import reason_without

pytestmark = pytest.mark.skipif(bool(reason_without()), reason=f"no kernels here: {reason_without()}")
CHANNELS_LAST = torch.channels_last


def maps(shape, dtype=torch.float32, center=0.0, seed=0):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + center
    return values.to(dtype).contiguous(memory_format=CHANNELS_LAST)


def norm_of(channels, seed=1):
    norm = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.2)
    generator = torch.Generator().manual_seed(seed)
    for values in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(values, generator=generator)
    return norm


def copy_of(norm, dtype=torch.float64):
    twin = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum)
    twin.load_state_dict(norm.state_dict())
    return twin.to(dtype)


def far_apart(ours, theirs):
    scale = float(theirs.detach().abs().max()) or 1.0
    return float((ours.detach().double() - theirs.detach().double()).abs().max()) / scale


SHAPES = [(2, 3, 5, 7), (4, 16, 9, 9), (3, 24, 11, 5), (2, 204, 7, 7), (3, 33, 2, 1), (5, 64, 20, 21)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 8e-3)], ids=str)
def test_norm_relu_is_batch_norm_and_relu(shape, dtype, tolerance):
    x = maps(shape, dtype, center=3.0).requires_grad_()
    gradient = maps((shape[0], 2 * shape[1], *shape[2:]), dtype, seed=2)[:, 1 : 1 + shape[1]]  # a slice
    norm = norm_of(shape[1])
    twin, exact = copy_of(norm), x.detach().double().requires_grad_()
    y, expected = norm_relu(x, [norm])[0], F.relu(twin(exact))
    y.backward(gradient)
    expected.backward(gradient.double())
    assert y.dtype is dtype
    assert y.is_contiguous(memory_format=CHANNELS_LAST)
    assert far_apart(y, expected) < tolerance
    assert far_apart(x.grad, exact.grad) < tolerance
    for ours, theirs in [(norm.weight, twin.weight), (norm.bias, twin.bias)]:
        assert far_apart(ours.grad, theirs.grad) < 1e-5
    assert far_apart(norm.running_mean, twin.running_mean) < 1e-6
    assert far_apart(norm.running_var, twin.running_var) < 1e-6
    assert norm.num_batches_tracked == 1


def test_a_large_mean_does_not_cancel_the_spread():
    x = maps((16, 20, 13, 13), center=3000.0)
    norm = norm_of(20)
    y = norm_relu(x, [norm])[0]
    expected = F.relu(copy_of(norm_of(20))(x.double()))
    assert far_apart(y, expected) < 1e-3  # float32 holds 3000 to 1 in 4,000 of the spread


def test_gradients_are_the_slopes_of_the_values():
    x = maps((3, 5, 4, 4), seed=3)
    weights, step = maps((3, 5, 4, 4), seed=4), 1e-2

    def value(moved):
        return float((norm_relu(moved, [norm_of(5)])[0].detach().double() * weights).sum())

    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    (norm_relu(leaf, [norm_of(5)])[0] * weights).sum().backward()
    for index in [(0, 0, 0, 0), (1, 4, 2, 3), (2, 2, 3, 1)]:
        up, down = x.clone(memory_format=torch.preserve_format), x.clone(memory_format=torch.preserve_format)
        up[index] += step
        down[index] -= step
        assert float(leaf.grad[index]) == pytest.approx((value(up) - value(down)) / (2 * step), abs=0.02)


def test_norms_side_by_side_are_the_same_as_apart():
    x = maps((4, 16 + 24 + 7, 6, 6)).requires_grad_()
    widths = [16, 24, 7]
    gradients = [maps((4, width, 6, 6), seed=width) for width in widths]
    together = norm_relu(x, [norm_of(width) for width in widths])
    torch.autograd.backward(together, gradients)
    start = 0
    for y, width, gradient in zip(together, widths, gradients, strict=True):
        part = x.detach()[:, start : start + width].contiguous(memory_format=CHANNELS_LAST).requires_grad_()
        alone = norm_relu(part, [norm_of(width)])[0]
        alone.backward(gradient)
        assert torch.equal(y, alone)
        assert torch.equal(x.grad[:, start : start + width], part.grad)
        start += width


def test_bits_do_not_depend_on_the_number_of_threads():
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            x, norm = maps((5, 40, 17, 17), torch.bfloat16).requires_grad_(), norm_of(40)
            y = max_pool(norm_relu(x, [norm])[0], (5, 17, 17, 40, 9, 9, 3, 2, 1, 1))
            y.backward(maps((5, 40, 9, 9), torch.bfloat16, seed=5))
            results.append([y, x.grad, norm.weight.grad, norm.bias.grad, norm.running_var])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(bad):
    x = maps((2, 4, 3, 3))
    x[0, 1, 0, 0] = bad
    y = norm_relu(x, [norm_of(4)])[0]
    assert y[:, 1].isnan().all()
    assert y[:, [0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_pools_of_values_that_are_not_finite(dtype):
    nan, inf = float("nan"), float("inf")
    x = torch.zeros(1, 4, 3, 3, dtype=dtype).contiguous(memory_format=CHANNELS_LAST)
    x[0, 0, 1, 2], x[0, 1, 1, 1], x[0, 2, 2, 0] = nan, inf, -inf
    x[0, 3] = -inf
    x[0, 0, 0, 1] = -torch.tensor(nan, dtype=dtype)  # the sign of what x86 makes of 0 / 0
    pooled = max_pool(x, (1, 3, 3, 4, 1, 1, 3, 1, 0, 0)).flatten().tolist()
    assert pooled[0] != pooled[0]
    assert pooled[1:] == [inf, 0.0, -inf]


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 3),
    channels=st.integers(1, 70),
    height=st.integers(3, 12),
    width=st.integers(3, 12),
    kernel=st.integers(1, 3),
    step=st.integers(1, 3),
    border=st.integers(0, 1),
    bfloat16=st.booleans(),
    data=st.data(),
)
def test_max_pool_is_pytorchs(images, channels, height, width, kernel, step, border, bfloat16, data):
    border = min(border, kernel // 2)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    seed = data.draw(st.integers(0, 1000))
    # Small whole numbers: many windows have several equal maxima.
    values = maps((images, channels + 3, height, width), seed=seed).round().to(dtype)
    x = values[:, 2 : 2 + channels].detach().requires_grad_()
    theirs = x.detach().clone(memory_format=CHANNELS_LAST).requires_grad_()
    expected = F.max_pool2d(theirs, kernel, step, border)
    sizes = (images, height, width, channels, *expected.shape[2:], kernel, step, border, border)
    if not is_map(x):  # one channel has no order in memory
        return
    ours = max_pool(x, sizes)
    assert torch.equal(ours, expected)
    gradient = maps(expected.shape, seed=seed + 1).round().to(dtype)  # sums of whole numbers are exact
    ours.backward(gradient)
    expected.backward(gradient)
    assert torch.equal(x.grad, theirs.grad)


def test_rows_of_maps():
    x = maps((2, 8, 3, 5))
    assert row_stride(x) == 8
    assert row_stride(x[:, 2:5]) == 8
    assert row_stride(x.contiguous()) == 0
    assert row_stride(x[:, :, ::2]) == 0
    assert row_stride(torch.zeros(2, 8, 1, 1).expand(2, 8, 3, 5)) == 0


def test_what_the_kernels_do_not_take():
    assert can_normalise(maps((2, 4, 3, 3)), [norm_of(4)])
    assert not can_normalise(maps((2, 4, 3, 3)).double(), [norm_of(4)])
    assert not can_normalise(maps((2, 4, 3, 3)).contiguous(), [norm_of(4)])
    assert not can_normalise(maps((1, 4, 1, 1)), [norm_of(4)])  # PyTorch refuses it in words
    assert not can_normalise(maps((2, 4, 3, 3)), [nn.BatchNorm2d(4, momentum=None)])
    assert not can_normalise(maps((2, 4, 3, 3)), [nn.BatchNorm2d(4, affine=False)])
    assert not can_normalise(maps((2, 4, 3, 3)), [norm_of(4).double()])
    assert not can_normalise(maps((2, 4, 3, 3)), [norm_of(5)])
    assert not can_normalise(maps((2, 4, 3, 3)), [norm_of(2), norm_of(3)])
