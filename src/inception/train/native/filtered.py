"""3x3 convolutions that train by minimal filtering (Winograd), forward and to the input; see `filtered.h`."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from inception.train.native.functions import check, empty_map, is_map, readable, row_stride
from inception.train.native.library import library

LANES, SMALLEST = 16, 4
"""Channels of a vector; the side of the smallest map for which tiles waste less than they save."""
SAME = {"kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}


def can_filter(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether `filtered` computes `conv` of `x`, and gains by it."""
    if conv.bias is not None or any(getattr(conv, name) != value for name, value in SAME.items()):
        return False
    whole_blocks = conv.in_channels % LANES == 0 and conv.out_channels % LANES == 0
    fits = whole_blocks and type(conv) is nn.Conv2d and conv.weight.dtype is torch.float32
    return fits and is_map(x) and min(x.shape[2:]) >= SMALLEST and _has_kernel(_number_type(x))


def _number_type(x: Tensor) -> torch.dtype:
    """What autocast, where it is on, computes a convolution in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _has_kernel(dtype: torch.dtype) -> bool:
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
        return _convolved(x, weight, transposed=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient, _ = readable(given, x.dtype)
        to_input = _convolved(gradient, weight, transposed=True) if ctx.needs_input_grad[0] else None
        to_weight = None
        if ctx.needs_input_grad[1]:
            sides = [1, 1]
            _, to_weight, _ = torch.ops.aten.convolution_backward(
                gradient,
                x,
                weight.to(x.dtype),
                None,
                sides,
                sides,
                sides,
                False,
                [0, 0],
                1,
                [False, True, False],
            )
            to_weight = to_weight.to(weight.dtype)
        return to_input, to_weight


def _convolved(x: Tensor, weight: Tensor, transposed: bool) -> Tensor:
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
    sizes = torch.tensor([images, height, width, channels, outputs])
    steps = torch.tensor(strides)
    check(
        run(
            x.data_ptr(),
            row_stride(x),
            first,
            steps.data_ptr(),
            sizes.data_ptr(),
            y.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return y
