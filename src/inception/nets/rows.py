"""The vocabulary in which networks are written: a network is a tuple of rows, read from input to output.

Each row knows how to build itself (`build`), given the channels that reach it and the network's `Style`.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import nn

from inception.nets.layers import (
    Activation,
    AvgPool,
    ConvBlock,
    LocalResponseNorm,
    MaxPool,
    Padding,
    Pair,
    SameConv2d,
    SeparableBlock,
)

MIN_DEPTH = 16
"""A width multiplier below 1 never makes a layer thinner than this (TF-slim's `min_depth`)."""


@dataclass(frozen=True)
class LrnConstants:
    """Constants of local response normalisation; `alpha` is over the whole window of `size` channels."""

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class Style:
    """What the rows of one network have in common.

    Attributes:
        batch_norm: batch-normalise every convolution and leave out LRN rows.
        bn_eps, bn_momentum: constants of batch normalisation (PyTorch's meaning of momentum).
        batch_norm_scale: whether batch normalisation learns a factor (gamma) beside its shift (beta).
            deviation: TF-slim's does not unless told so; all PyTorch and Caffe weights have the factor.
        bias: whether convolutions have a bias; None: only without batch normalisation.
        activation: the non-linearity after every layer but the last.
        padding: border rule of strided convolutions and pools.
        count_include_pad: whether average pools of stride 1 count the zeros of the border.
        lrn: constants of the LRN rows.
        width: multiplier of all channel counts inside the network.
        module: `reduced` (Figure 2b of the paper) or `naive` (Figure 2a) Inception modules.
        kernel5: how the third branch sees 5x5: `5x5`, one `3x3` (TF-slim's and torchvision's slip), or two
            stacked 3x3 (`3x3+3x3`, Szegedy et al. 2016, Figure 4).
        nested_names: name branches as torchvision does (`branch2.0`) instead of as the paper (`b3x3_reduce`).
    """

    batch_norm: bool = False
    bn_eps: float = 1e-3
    bn_momentum: float = 0.1
    batch_norm_scale: bool = True
    bias: bool | None = None
    activation: Activation = "relu"
    padding: Padding = "ceil"
    count_include_pad: bool = False
    lrn: LrnConstants = LrnConstants()
    width: float = 1.0
    module: Literal["reduced", "naive"] = "reduced"
    kernel5: Literal["5x5", "3x3", "3x3+3x3"] = "5x5"
    nested_names: bool = False

    def depth(self, channels: int) -> int:
        """`channels` under the width multiplier."""
        return max(int(channels * self.width), min(channels, MIN_DEPTH))


def convolution(
    channels: Pair,
    kernel: Pair,
    stride: int,
    style: Style,
    *,
    bias: bool,
    pad: int | None = None,
    groups: int = 1,
    dilation: int = 1,
) -> nn.Conv2d:
    """A bare convolution of `channels` (in, out) with the style's borders.

    `pad` is the zeros on each side; None keeps the size at stride 1. Where the style says `same`,
    TensorFlow's rule replaces both.
    """
    same = style.padding == "same"
    border = (dilation * (kernel[0] // 2), dilation * (kernel[1] // 2))
    if pad is not None and not same:
        border = (pad, pad)
    tensorflow = same and stride > 1
    return (SameConv2d if tensorflow else nn.Conv2d)(
        *channels,
        kernel,
        stride=stride,
        padding=0 if tensorflow else border,
        dilation=dilation,
        groups=groups,
        bias=bias,
    )


def conv_block(
    in_channels: int,
    out_channels: int,
    kernel: int | Pair,
    stride: int,
    style: Style,
    pad: int | None = None,
    groups: int = 1,
    dilation: int = 1,
) -> ConvBlock:
    """A convolution layer in the network's style; `out_channels` is final (the width is not applied)."""
    window = (kernel, kernel) if isinstance(kernel, int) else kernel
    bias = not style.batch_norm if style.bias is None else style.bias
    channels = (in_channels, out_channels)
    conv = convolution(channels, window, stride, style, bias=bias, pad=pad, groups=groups, dilation=dilation)
    norm = _batch_norm(out_channels, style) if style.batch_norm else None
    return ConvBlock(conv, norm, style.activation)


def _batch_norm(channels: int, style: Style) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, style.bn_eps, style.bn_momentum)
    if not style.batch_norm_scale:
        # Not a subclass: torch.fx and all that looks for batch norms know the layer by its class.
        norm.register_parameter("weight", None)
    return norm


class Row(Protocol):
    """One line of a network's table: a named stage."""

    @property
    def name(self) -> str:
        """The stage's name, and its attribute on the network."""
        ...

    @property
    def stride(self) -> int:
        """By how much the stage divides height and width."""
        ...

    def build(self, in_channels: int, style: Style) -> tuple[nn.Module, int]:
        """The module, and the number of channels it gives."""
        ...


@dataclass(frozen=True)
class Conv:
    """Convolution with ReLU (and batch norm where the style says so).

    Attributes:
        kernel: side of the window, or its height and width.
        pad: zeros on each side; None keeps the size at stride 1. `pad=0` is TF-slim's VALID.
        groups: blocks of channels that do not see each other.
        dilation: distance between the window's positions (only with stride 1).
    """

    name: str
    channels: int
    kernel: int | Pair
    stride: int = 1
    pad: int | None = None
    groups: int = 1
    dilation: int = 1

    def build(self, in_channels: int, style: Style) -> tuple[nn.Module, int]:
        """See `Row.build`."""
        out_channels = style.depth(self.channels)
        block = conv_block(
            in_channels,
            out_channels,
            self.kernel,
            self.stride,
            style,
            self.pad,
            self.groups,
            self.dilation,
        )
        return block, out_channels


@dataclass(frozen=True)
class SeparableConv:
    """TF-slim's separable convolution: `multiplier` depthwise filters a channel, then 1x1.

    Biased and without batch norm even where the style has it: slim's argument scope leaves it out.
    """

    name: str
    channels: int
    kernel: int
    stride: int = 1
    multiplier: int = 8

    def build(self, in_channels: int, style: Style) -> tuple[nn.Module, int]:
        """See `Row.build`."""
        out_channels = style.depth(self.channels)
        inner = in_channels * min(int(out_channels / 3), self.multiplier)
        window = (self.kernel, self.kernel)
        depthwise = convolution(
            (in_channels, inner), window, self.stride, style, bias=False, groups=in_channels
        )
        return SeparableBlock(depthwise, nn.Conv2d(inner, out_channels, 1)), out_channels


@dataclass(frozen=True)
class Pool:
    """Pooling.

    Attributes:
        padding: overrides the network's border rule.
        pad: border of a max pool of stride 1; None keeps the size.
    """

    name: str
    kernel: int
    stride: int = 1
    kind: Literal["max", "average"] = "max"
    padding: Padding | None = None
    pad: int | None = None

    def build(self, in_channels: int, style: Style) -> tuple[nn.Module, int]:
        """See `Row.build`."""
        padding = self.padding or style.padding
        if self.kind == "average":
            return AvgPool(self.kernel, self.stride, padding, style.count_include_pad), in_channels
        return MaxPool(self.kernel, self.stride, padding, self.pad), in_channels


@dataclass(frozen=True)
class Lrn:
    """Local response normalisation with the style's constants."""

    name: str
    stride: int = 1

    def build(self, in_channels: int, style: Style) -> tuple[nn.Module, int]:
        """See `Row.build`."""
        lrn = style.lrn
        return LocalResponseNorm(in_channels, lrn.size, lrn.alpha, lrn.beta, lrn.k), in_channels
