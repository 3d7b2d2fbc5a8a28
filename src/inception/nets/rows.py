"""The vocabulary in which networks are written: a network is a tuple of rows, read from input to output.

Each row knows how to build itself (`build`), given the channels that reach it and the network's `Style`.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import nn

from inception.nets.layers import Concat, ConvBlock, LocalResponseNorm, MaxPool, Padding, SameConv2d

MIN_DEPTH = 16
"""A width multiplier never makes a layer thinner than this (TF-slim's `min_depth`)."""


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
        batch_norm: batch-normalise every convolution (which then has no bias) and leave out LRN rows.
        bn_eps, bn_momentum: constants of batch normalisation (PyTorch's meaning of momentum).
        padding: border rule of strided convolutions and pools.
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
    padding: Padding = "ceil"
    lrn: LrnConstants = LrnConstants()
    width: float = 1.0
    module: Literal["reduced", "naive"] = "reduced"
    kernel5: Literal["5x5", "3x3", "3x3+3x3"] = "5x5"
    nested_names: bool = False

    def depth(self, channels: int) -> int:
        """`channels` under the width multiplier."""
        return channels if self.width == 1.0 else max(int(channels * self.width), MIN_DEPTH)


def conv_block(in_channels: int, out_channels: int, kernel: int, stride: int, style: Style) -> ConvBlock:
    """A convolution layer in the network's style; `out_channels` is final (the width is not applied)."""
    same = style.padding == "same" and stride > 1
    conv = (SameConv2d if same else nn.Conv2d)(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=0 if same else kernel // 2,
        bias=not style.batch_norm,
    )
    norm = nn.BatchNorm2d(out_channels, style.bn_eps, style.bn_momentum) if style.batch_norm else None
    return ConvBlock(conv, norm)


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
    """Square convolution with ReLU (and batch norm where the style says so)."""

    name: str
    channels: int
    kernel: int
    stride: int = 1

    def build(self, in_channels: int, style: Style) -> tuple[nn.Module, int]:
        """See `Row.build`."""
        out_channels = style.depth(self.channels)
        return conv_block(in_channels, out_channels, self.kernel, self.stride, style), out_channels


@dataclass(frozen=True)
class Pool:
    """Max pooling."""

    name: str
    kernel: int
    stride: int = 1

    def build(self, in_channels: int, style: Style) -> tuple[nn.Module, int]:
        """See `Row.build`."""
        return MaxPool(self.kernel, self.stride, style.padding), in_channels


@dataclass(frozen=True)
class Lrn:
    """Local response normalisation with the style's constants."""

    name: str
    stride: int = 1

    def build(self, in_channels: int, style: Style) -> tuple[nn.Module, int]:
        """See `Row.build`."""
        lrn = style.lrn
        return LocalResponseNorm(in_channels, lrn.size, lrn.alpha, lrn.beta, lrn.k), in_channels


@dataclass(frozen=True)
class Inception:
    """One Inception module: the six numbers of a line of the paper's Table 1, in its order."""

    name: str
    n1x1: int
    reduce3x3: int
    n3x3: int
    reduce5x5: int
    n5x5: int
    pool_proj: int
    stride: int = 1

    def branches(self, style: Style) -> list[list[Conv | Pool]]:
        """The four branches as chains of rows."""
        kernel = 3 if style.kernel5 == "3x3" else 5
        wide = [Conv("b5x5", self.n5x5, kernel)]
        if style.kernel5 == "3x3+3x3":
            wide = [Conv("b5x5_first", self.n5x5, 3), Conv("b5x5_second", self.n5x5, 3)]
        if style.module == "naive":
            return [
                [Conv("b1x1", self.n1x1, 1)],
                [Conv("b3x3", self.n3x3, 3)],
                [*wide],
                [Pool("pool", 3)],
            ]
        return [
            [Conv("b1x1", self.n1x1, 1)],
            [Conv("b3x3_reduce", self.reduce3x3, 1), Conv("b3x3", self.n3x3, 3)],
            [Conv("b5x5_reduce", self.reduce5x5, 1), *wide],
            [Pool("pool", 3), Conv("pool_proj", self.pool_proj, 1)],
        ]

    def build(self, in_channels: int, style: Style) -> tuple[nn.Module, int]:
        """See `Row.build`."""
        built: list[list[tuple[str, nn.Module]]] = []
        total = 0
        for branch in self.branches(style):
            chain: list[tuple[str, nn.Module]] = []
            channels = in_channels
            for row in branch:
                module, channels = row.build(channels, style)
                chain.append((row.name, module))
            built.append(chain)
            total += channels
        return Concat(built, style.nested_names), total
