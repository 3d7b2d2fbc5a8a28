"""3x3 convolutions by minimal filtering: outputs and both gradients against PyTorch in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from inception.train.native.filtered import can_filter, filtered
from inception.train.native.library import library, reason_without

pytestmark = pytest.mark.skipif(bool(reason_without()), reason=f"no kernels here: {reason_without()}")
HAS_BFLOAT16 = not reason_without() and bool(library().has_filtered_bfloat16())
DTYPES = [torch.float32, *([torch.bfloat16] if HAS_BFLOAT16 else [])]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}


def layer(inputs, outputs, channels_last=True):
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return conv.to(memory_format=torch.channels_last) if channels_last else conv


def random_map(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype).contiguous(memory_format=torch.channels_last)


def gradients(run, conv, x, given):
    x = x.detach().requires_grad_()
    conv.weight.grad = None
    y = run(x)
    y.backward(given)
    return y.detach(), x.grad, conv.weight.grad


def expected(conv, x, given):
    x = x.detach().double().requires_grad_()
    weight = conv.weight.detach().double().requires_grad_()
    y = F.conv2d(x, weight, padding=1)
    y.backward(given.double())
    return y.detach(), x.grad, weight.grad


def assert_close(found, right, tolerance):
    for one, other in zip(found, right, strict=True):
        assert ((one.double() - other).abs().max() / other.abs().max()).item() < tolerance


@given(
    st.integers(1, 3),
    st.sampled_from([16, 32, 48, 80]),
    st.sampled_from([16, 32, 48, 96]),
    st.integers(4, 21),
    st.integers(4, 21),
    st.sampled_from(DTYPES),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_outputs_and_gradients(images, inputs, outputs, height, width, dtype, channels_last):
    torch.manual_seed(images * height * width)
    conv, x = layer(inputs, outputs, channels_last), random_map(images, inputs, height, width, dtype=dtype)
    wanted = random_map(images, outputs, height, width, dtype=dtype)
    assert can_filter(x, conv)
    found = gradients(lambda map_: filtered(map_, conv), conv, x, wanted)
    assert found[0].dtype is found[1].dtype is dtype
    assert_close(found, expected(conv, x, wanted), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(dtype):
    torch.manual_seed(1)
    conv, x = layer(64, 96), random_map(3, 64, 30, 17, dtype=dtype)
    wanted, before, found = random_map(3, 96, 30, 17, dtype=dtype), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(gradients(lambda map_: filtered(map_, conv), conv, x, wanted)[:2])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_slice_of_a_wider_map():
    conv, wide = layer(32, 16), random_map(2, 96, 9, 9)
    part = wide[:, 32:64]
    assert can_filter(part, conv)
    assert_close([filtered(part, conv)], [F.conv2d(part.double(), conv.weight.double(), padding=1)], 1e-5)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor has no products of bfloat16")
def test_autocast_decides_the_number_type():
    conv, x = layer(32, 32), random_map(1, 32, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert can_filter(x, conv)
        y = filtered(x, conv)
    assert y.dtype is torch.bfloat16
    y.float().sum().backward()
    assert conv.weight.grad.dtype is torch.float32


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv2d(16, 16, 3, padding=1), (1, 16, 8, 8)),  # a bias
        (nn.Conv2d(16, 16, 3, bias=False), (1, 16, 8, 8)),
        (nn.Conv2d(16, 16, 3, padding=1, stride=2, bias=False), (1, 16, 8, 8)),
        (nn.Conv2d(16, 16, 3, padding=1, groups=4, bias=False), (1, 16, 8, 8)),
        (nn.Conv2d(16, 16, 3, padding=2, dilation=2, bias=False), (1, 16, 8, 8)),
        (nn.Conv2d(16, 16, 5, padding=2, bias=False), (1, 16, 8, 8)),
        (nn.Conv2d(16, 24, 3, padding=1, bias=False), (1, 16, 8, 8)),
        (nn.Conv2d(3, 16, 3, padding=1, bias=False), (1, 3, 8, 8)),
        (nn.Conv2d(16, 16, 3, padding=1, bias=False), (1, 16, 3, 8)),
        (nn.Conv2d(16, 16, 3, padding=1, bias=False).double(), (1, 16, 8, 8)),
    ],
    ids=str,
)
def test_other_convolutions_are_left_to_pytorch(conv, shape):
    assert not can_filter(random_map(*shape), conv)


def test_a_map_that_is_not_channels_last_is_left_to_pytorch():
    assert not can_filter(torch.randn(1, 16, 8, 8), layer(16, 16))
