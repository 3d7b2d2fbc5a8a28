"""The kernels as differentiable functions of N x C x H x W maps on a CPU, channels last."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from inception.train.native.library import library

DTYPES = (torch.float32, torch.bfloat16)


def row_stride(x: Tensor) -> int:
    """Elements from one position to the next of an N x C x H x W map that is channels last; 0 if it is not.

    A slice along the channels of a wider map is: its positions lie further apart than it has channels.
    """
    _, channels, height, width = x.shape
    stride = x.stride(3)
    regular = x.stride() == (height * width * stride, 1, width * stride, stride)
    return stride if regular and stride >= channels else 0


def is_map(x: Tensor) -> bool:
    """Whether the kernels can read `x`."""
    readable = x.device.type == "cpu" and x.dtype in DTYPES
    return readable and x.dim() == 4 and x.numel() > 0 and row_stride(x) > 0


def can_normalise(x: Tensor, norms: Sequence[nn.BatchNorm2d]) -> bool:
    """Whether `norm_relu` takes `x` and the parameters of `norms`."""
    fits = x.dim() == 4 and x.shape[1] == sum(norm.num_features for norm in norms)
    return fits and is_map(x) and x.numel() > x.shape[1] and all(map(_is_readable, norms))


def _is_readable(norm: nn.BatchNorm2d) -> bool:
    parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return norm.momentum is not None and all(
        part is not None
        and part.dtype is torch.float32
        and part.is_contiguous()
        and part.numel() == norm.num_features
        for part in parts
    )


def norm_relu(x: Tensor, norms: Sequence[nn.BatchNorm2d]) -> tuple[Tensor, ...]:
    """Batch normalisation in training (Ioffe and Szegedy 2015, algorithm 1), then ReLU.

    Args:
        x: maps that `can_normalise`, of as many channels as all norms have together.
        norms: each takes its share of the channels, in order; their running statistics are moved.

    Returns the maps of each norm, in x's number type.
    """
    for norm in norms:
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
    parameters = [parameter for norm in norms for parameter in (norm.weight, norm.bias)]
    result: tuple[Tensor, ...] = _NormReLU.apply(x, tuple(norms), *parameters)
    return result


def max_pool(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Max pooling; of equal values the first one of a window gets the gradient, as in PyTorch.

    Args:
        x: N x C x H x W that `is_map`.
        sizes: N, H, W, C, pooled height, pooled width, kernel, stride, padding above, padding on the left.
    """
    result: Tensor = _MaxPool.apply(x, sizes)
    return result


def empty_map(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory for a map N x C x H x W, channels last."""
    return torch.empty(tuple(shape), dtype=dtype, memory_format=torch.channels_last)


def readable(gradient: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    """The gradient in a number type, with regular rows, and their stride."""
    gradient = gradient.to(dtype)
    stride = row_stride(gradient)
    if not stride:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        stride = gradient.shape[1]
    return gradient, stride


def check(failed: int) -> None:
    """Raise MemoryError for what a kernel returns when it had no memory."""
    if failed:
        raise MemoryError("no memory for what a training kernel must keep meanwhile")


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norms: tuple[nn.BatchNorm2d, ...], *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        images, width, *sides = x.shape
        state = torch.empty(4 * width, dtype=torch.float32)
        outputs, start = [], 0
        for norm in norms:
            channels = norm.num_features
            y = empty_map((images, channels, *sides), x.dtype)
            failed = library().norm_relu_forward(
                x.data_ptr() + start * x.element_size(),
                x.numel() // width,
                channels,
                row_stride(x),
                x.dtype is torch.bfloat16,
                norm.weight.data_ptr(),
                norm.bias.data_ptr(),
                norm.running_mean.data_ptr(),  # type: ignore[union-attr]
                norm.running_var.data_ptr(),  # type: ignore[union-attr]
                norm.momentum,
                norm.eps,
                y.data_ptr(),
                state.data_ptr() + 4 * start * state.element_size(),
                torch.get_num_threads(),
            )
            check(failed)
            outputs.append(y)
            start += channels
        ctx.save_for_backward(x, state)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, state = ctx.saved_tensors
        width, start = x.shape[1], 0
        x_gradient = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
        parameters: list[Tensor | None] = []
        for given in gradients:
            gradient, stride = readable(given, x.dtype)
            channels = gradient.shape[1]
            weight, bias = (torch.empty(channels, dtype=torch.float32) for _ in range(2))
            failed = library().norm_relu_backward(
                gradient.data_ptr(),
                stride,
                x.data_ptr() + start * x.element_size(),
                x.numel() // width,
                channels,
                row_stride(x),
                x.dtype is torch.bfloat16,
                state.data_ptr() + 4 * start * state.element_size(),
                x_gradient.data_ptr() + start * x.element_size(),
                weight.data_ptr(),
                bias.data_ptr(),
                torch.get_num_threads(),
            )
            check(failed)
            parameters += (weight, bias)
            start += channels
        return (x_gradient, None, *parameters)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
        packed = torch.tensor(sizes, dtype=torch.int64)
        y = empty_map((*x.shape[:2], *sizes[4:6]), x.dtype)
        places = torch.empty(y.numel(), dtype=torch.uint8)
        failed = library().max_pool_forward(
            x.data_ptr(),
            row_stride(x),
            packed.data_ptr(),
            x.dtype is torch.bfloat16,
            y.data_ptr(),
            places.data_ptr(),
            torch.get_num_threads(),
        )
        check(failed)
        ctx.save_for_backward(places, packed)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        places, packed = ctx.saved_tensors
        images, height, width, channels = packed[:4].tolist()
        gradient, stride = readable(given, given.dtype)
        x_gradient = empty_map((images, channels, height, width), gradient.dtype)
        library().max_pool_backward(
            gradient.data_ptr(),
            stride,
            places.data_ptr(),
            packed.data_ptr(),
            gradient.dtype is torch.bfloat16,
            x_gradient.data_ptr(),
            torch.get_num_threads(),
        )
        return x_gradient, None
