"""3x3 convolutions by minimal filtering: outputs and both gradients against PyTorch in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from inception.nets.layers import SameConv2d
from inception.train.native.filtered import FEWEST, can_filter, filtered
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


def in_type(dtype):
    """Autocast, which is how bfloat16 trains."""
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16)


def gradients(conv, x, wanted):
    x = x.detach().requires_grad_()
    conv.weight.grad = None
    with in_type(x.dtype):
        assert can_filter(x, conv)
        y = filtered(x, conv)
    y.backward(wanted)
    return y.detach(), x.grad, conv.weight.grad


def expected(conv, x, wanted):
    x = x.detach().double().requires_grad_()
    weight = conv.weight.detach().double().requires_grad_()
    y = F.conv2d(x, weight, padding=1)
    y.backward(wanted.double())
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
    assume(images * height * width >= FEWEST)
    found = gradients(conv, x, wanted)
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
            found.append(gradients(conv, x, wanted)[:2])  # of the weights it is PyTorch's
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
        (nn.Conv2d(16, 16, 3, padding=1, bias=False, padding_mode="reflect"), (1, 16, 8, 8)),
        (nn.Conv2d(16, 16, 3, padding="same", bias=False), (1, 16, 8, 8)),
        (SameConv2d(16, 16, 3, bias=False), (1, 16, 8, 8)),
        (nn.Conv2d(32, 16, 3, padding=1, bias=False), (1, 48, 8, 8)),
        (nn.Conv2d(16, 16, 3, padding=1, bias=False), (1, 16, 4, 4)),
    ],
    ids=str,
)
def test_other_convolutions_are_left_to_pytorch(conv, shape):
    assert not can_filter(random_map(*shape), conv)


def test_hooks_keep_working():
    conv = layer(16, 16)
    conv.register_forward_hook(lambda *_: None)
    assert not can_filter(random_map(1, 16, 8, 8), conv)


def test_bfloat16_without_autocast_is_pytorchs_error_to_raise():
    assert not can_filter(random_map(1, 16, 8, 8, dtype=torch.bfloat16), layer(16, 16))


def test_a_gradient_that_is_not_channels_last():
    """As `squeeze` leaves it for one image, and as `cat` does for a part of a wider map."""
    conv, x = layer(16, 16), random_map(1, 16, 8, 8)
    for loss in (lambda y: (y.squeeze(0) ** 2).sum(), lambda y: (torch.cat([y, y], 1) ** 2).sum()):
        first, second = x.detach().requires_grad_(), x.detach().double().requires_grad_()
        loss(filtered(first, conv)).backward()
        loss(F.conv2d(second, conv.weight.double(), padding=1)).backward()
        assert_close([first.grad], [second.grad], 1e-5)


def test_only_the_gradients_that_are_asked_for():
    conv, x = layer(16, 16), random_map(1, 16, 8, 8)
    filtered(x, conv).sum().backward()
    assert conv.weight.grad is not None
    assert x.grad is None
    conv.requires_grad_(False)
    conv.weight.grad = None
    x.requires_grad_()
    filtered(x, conv).sum().backward()
    assert conv.weight.grad is None
    assert x.grad is not None


def test_a_map_that_is_not_channels_last_is_left_to_pytorch():
    assert not can_filter(torch.randn(1, 16, 8, 8), layer(16, 16))
