"""3x3 convolutions that train by minimal filtering (Winograd), forward and to the input; see `filtered.h`."""

from ctypes import addressof, c_int64
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from inception.train.native.functions import check, empty_map, is_map, readable, row_stride
from inception.train.native.library import library

LANES, SMALLEST, FEWEST = 16, 4, 64
"""Channels of a vector; the side of the smallest map whose tiles waste less than they save; positions in all
images together from which it pays to transform the kernel."""
SAME: dict[str, Any] = {
    "kernel_size": (3, 3),
    "stride": (1, 1),
    "padding": (1, 1),
    "dilation": (1, 1),
    "groups": 1,
    "padding_mode": "zeros",
    "bias": None,
}


def can_filter(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether `filtered` computes `conv` of `x`, and where it usually gains by it."""
    if type(conv) is not nn.Conv2d or any(getattr(conv, name) != value for name, value in SAME.items()):
        return False
    return not _is_hooked(conv) and _is_usual(conv.weight) and is_map(x) and _fits(x, conv.weight)


def _is_hooked(conv: nn.Conv2d) -> bool:
    return bool(conv._forward_hooks or conv._forward_pre_hooks)


def _is_usual(weight: Tensor) -> bool:
    whole_blocks = weight.shape[0] % LANES == 0 and weight.shape[1] % LANES == 0
    return whole_blocks and weight.dtype is torch.float32 and weight.device.type == "cpu"


def _fits(x: Tensor, weight: Tensor) -> bool:
    sides = x.shape[2:]
    large = min(sides) >= SMALLEST and x.shape[0] * sides[0] * sides[1] >= FEWEST
    return large and x.shape[1] == weight.shape[1] and _has_kernel(x)


def _number_type(x: Tensor) -> torch.dtype:
    """What autocast, where it is on, computes a convolution in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _has_kernel(x: Tensor) -> bool:
    if not torch.is_autocast_enabled("cpu"):
        return x.dtype is torch.float32  # as the weights are
    dtype = _number_type(x)
    return dtype is torch.float32 or (dtype is torch.bfloat16 and bool(library().has_filtered_bfloat16()))


def filtered(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """The convolution `conv` of a map for which `can_filter` holds, in its number type or autocast's.

    Tiles of 2x2 outputs in bfloat16 and of 4x4 in float32; the weights are transformed from float32. The
    gradient of the weights is PyTorch's.
    """
    result: Tensor = _Filtered.apply(x.to(_number_type(x)), conv.weight)
    return result


class _Filtered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolved(x, row_stride(x), weight, transposed=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient, stride = readable(gradient, x.dtype)
        to_input = _convolved(gradient, stride, weight, transposed=True) if ctx.needs_input_grad[0] else None
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = _weight_gradient(x, gradient, weight)
        return to_input, to_weight


def _weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """PyTorch's."""
    ones, wanted = [1, 1], [False, True, False]  # stride, padding and dilation are 1
    found = torch.ops.aten.convolution_backward(
        gradient, x, weight.to(x.dtype), None, ones, ones, ones, False, [0, 0], 1, wanted
    )
    result: Tensor = found[1].to(weight.dtype)
    return result


def _convolved(x: Tensor, stride: int, weight: Tensor, transposed: bool) -> Tensor:
    """The convolution, or the one that takes gradients back: channels exchanged, the kernel turned round."""
    images, channels, height, width = x.shape
    first, strides = weight.data_ptr(), list(weight.stride())
    outputs = weight.shape[0]
    if transposed:
        outputs = weight.shape[1]
        first += 2 * (strides[2] + strides[3]) * weight.element_size()
        strides = [strides[1], strides[0], -strides[2], -strides[3]]
    y = empty_map((images, outputs, height, width), x.dtype)
    run = library().filtered_bfloat16 if x.dtype is torch.bfloat16 else library().filtered_float32
    sizes = (c_int64 * 5)(images, height, width, channels, outputs)
    steps = (c_int64 * 4)(*strides)
    check(
        run(
            x.data_ptr(),
            stride,
            first,
            addressof(steps),
            addressof(sizes),
            y.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return y
