"""The layers every network of the family is made of. Shapes are N x C x H x W throughout."""

from collections.abc import Callable
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Padding = Literal["ceil", "floor", "same"]
"""How borders are treated: `ceil` is Caffe's and PyTorch's rule (symmetric convolutions, pools rounded up),
`floor` the same with pools rounded down, `same` TensorFlow's (output = ceil(input / stride), the odd pixel
of padding after, not before)."""

Pair = tuple[int, int]


def same_padding(length: int, kernel: int, stride: int) -> Pair:
    """Pixels that TensorFlow's SAME rule adds before and after a side of `length` pixels."""
    total = max((-(length // -stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


@torch.fx.wrap
def pad_same(x: Tensor, kernel: Pair, stride: Pair, value: float) -> Tensor:
    """Pad N x C x H x W with `value` as TensorFlow's SAME rule does before a window of `kernel`/`stride`."""
    top, bottom = same_padding(x.shape[2], kernel[0], stride[0])
    left, right = same_padding(x.shape[3], kernel[1], stride[1])
    if top == bottom == left == right == 0:
        return x
    return F.pad(x, (left, right, top, bottom), value=value)


class SameConv2d(nn.Conv2d):
    """`nn.Conv2d` whose padding follows TensorFlow's SAME rule for any input size."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102 - nn.Conv2d's own signature
        kernel = (self.kernel_size[0], self.kernel_size[1])
        stride = (self.stride[0], self.stride[1])
        return super().forward(pad_same(input, kernel, stride, 0.0))


def is_pointwise(conv: nn.Conv2d) -> bool:
    """Whether a convolution reads one position for each it writes, and all channels of it."""
    return conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1


Activation = Literal["relu", "tanh"]


def activate(x: Tensor, activation: Activation) -> Tensor:
    """The non-linearity of a layer; `x` is overwritten."""
    return torch.tanh_(x) if activation == "tanh" else F.relu(x, inplace=True)


class MaxPool(nn.Module):
    """Max pooling over a square window, borders by the network's padding rule.

    With stride 1 all three rules agree: symmetric padding that keeps the size, unless `pad` says otherwise.
    """

    def __init__(self, kernel: int, stride: int, padding: Padding, pad: int | None = None) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.border = kernel // 2 if pad is None or padding == "same" else pad

    def extra_repr(self) -> str:
        """Arguments, for `repr`."""
        return f"kernel={self.kernel}, stride={self.stride}, padding={self.padding!r}"

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in, pooled N x C x H' x W' out."""
        if self.stride == 1:
            return F.max_pool2d(x, self.kernel, 1, padding=self.border)
        if self.padding == "same":
            square = (self.kernel, self.kernel)
            x = pad_same(x, square, (self.stride, self.stride), float("-inf"))
        return F.max_pool2d(x, self.kernel, self.stride, ceil_mode=self.padding == "ceil")


class AvgPool(nn.Module):
    """Average pooling over a square window: with stride 1 it keeps the size, else windows lie side by side.

    `count_include_pad` says whether the zeros of the border count in the mean: peers differ, and it moves
    logits by percents.
    """

    def __init__(self, kernel: int, stride: int, padding: Padding, count_include_pad: bool) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.count_include_pad = count_include_pad

    def extra_repr(self) -> str:
        """Arguments, for `repr`."""
        return f"kernel={self.kernel}, stride={self.stride}, count_include_pad={self.count_include_pad}"

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in, pooled N x C x H' x W' out."""
        border = self.kernel // 2 if self.stride == 1 else 0
        return F.avg_pool2d(
            x,
            self.kernel,
            self.stride,
            border,
            ceil_mode=self.padding != "floor",
            count_include_pad=self.count_include_pad,
        )


class LocalResponseNorm(nn.Module):
    """Across-channel response normalisation: x / (k + alpha / size * sum of squares in the window) ** beta.

    `alpha` is divided by `size` as in Caffe and `torch.nn.LocalResponseNorm`. The windowed sum is written as
    a 1x1 convolution with a banded matrix: the same numbers as torch's version, faster on a CPU, and
    made of standard operators that every exporter knows. Source: Krizhevsky et al. 2012, section 3.3.
    """

    band: Tensor
    offset: Tensor

    def __init__(self, channels: int, size: int, alpha: float, beta: float, k: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k
        self.register_buffer("band", torch.empty(channels, channels, 1, 1), persistent=False)
        self.register_buffer("offset", torch.empty(channels), persistent=False)
        self._fill()

    def _fill(self) -> None:
        """Write the constants, where there is memory: row i of the band is alpha / size at i's window."""
        if self.band.is_meta:  # there is nothing to cut, and torch would import hundreds of modules to do so
            return
        full = torch.full(self.band.shape[:2], self.alpha / self.size, device=self.band.device)
        band = full.triu(-(self.size // 2)).tril((self.size - 1) // 2)
        with torch.no_grad():
            self.band.copy_(band[:, :, None, None])
            self.offset.fill_(self.k)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As in `nn.Module`; then the constants are written again, which `to_empty` leaves unset."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._fill()
        return self

    def place(self, device: torch.device) -> None:
        """Give the constants memory on `device`, if they have none: they are no part of a state dict."""
        if self.band.is_meta:
            self.band = torch.empty(self.band.shape, device=device)
            self.offset = torch.empty(self.offset.shape, device=device)
            self._fill()

    def extra_repr(self) -> str:
        """Arguments, for `repr`."""
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in, the same shape out."""
        scale = F.conv2d(x.square(), self.band.to(x.dtype), self.offset.to(x.dtype))
        if self.beta == 0.75:
            root = scale.rsqrt()
            return x * (root * root.sqrt())
        if self.beta == 0.5:
            return x * scale.rsqrt()
        return x * scale.pow(-self.beta)


class ConvBlock(nn.Module):
    """Convolution, optional batch normalisation, ReLU (or tanh): what the papers call a convolution layer."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, activation: Activation = "relu") -> None:
        super().__init__()
        self.conv = conv
        self.bn = norm
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in, N x out_channels x H' x W' out, values >= 0 (in -1..1 with tanh)."""
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        return activate(x, self.activation)


class SeparableBlock(nn.Module):
    """Depthwise convolution, pointwise convolution, ReLU: TF-slim's `separable_conv2d`."""

    def __init__(self, depthwise: nn.Conv2d, pointwise: nn.Conv2d) -> None:
        super().__init__()
        self.depthwise = depthwise
        self.pointwise = pointwise

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in, N x out_channels x H' x W' out, values >= 0."""
        return F.relu(self.pointwise(self.depthwise(x)), inplace=True)


Named = tuple[str, nn.Module]
Step = Named | list[Named]
"""One step of a branch: a named module, or several side by side on the same input."""


class Concat(nn.Module):
    """Parallel branches over one input, joined along the channels.

    Args:
        branches: each a chain of steps. With `nested` a chain becomes the child `branch1`, `branch2`, …
            (torchvision's names); without, its modules are children under their own names.
    """

    def __init__(self, branches: list[list[Step]], nested: bool) -> None:
        super().__init__()
        self.paths: list[list[tuple[str, ...]]] = []
        for index, chain in enumerate(branches, start=1):
            steps = [step if isinstance(step, list) else [step] for step in chain]
            if nested:
                modules = [module for step in steps for _, module in step]
                steps = [[(f"branch{index}", modules[0] if len(modules) == 1 else nn.Sequential(*modules))]]
            for name, module in (child for step in steps for child in step):
                self.add_module(name, module)
            self.paths.append([tuple(name for name, _ in step) for step in steps])

    def forward_branch(self, x: Tensor, path: list[tuple[str, ...]]) -> Tensor:
        """One branch's output, N x C_branch x H x W."""
        for names in path:
            parts = [getattr(self, name)(x) for name in names]
            x = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in, N x (sum of the branches' channels) x H' x W' out."""
        return torch.cat([self.forward_branch(x, path) for path in self.paths], dim=1)


class ResidualBlock(nn.Module):
    """Branches, a linear 1x1 convolution back to the input's channels, and a scaled sum with the input.

    Source: Szegedy et al. 2017, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
    Learning", section 3.3 (scaling of the residuals).
    """

    def __init__(self, branches: Concat, up: nn.Conv2d, scale: float, relu: bool) -> None:
        super().__init__()
        self.branches = branches
        self.up = up
        self.scale, self.relu = scale, relu

    def extra_repr(self) -> str:
        """Arguments, for `repr`."""
        return f"scale={self.scale}, relu={self.relu}"

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in, the same shape out."""
        x = x + self.scale * self.up(self.branches(x))
        return F.relu(x, inplace=True) if self.relu else x
