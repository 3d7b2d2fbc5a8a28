"""Rows that stand for a whole module: branches side by side, and residual blocks made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from inception.nets.layers import Concat, ResidualBlock, Step
from inception.nets.rows import Conv, Pool, Style


@dataclass(frozen=True)
class Fork:
    """Convolutions side by side on one input, joined along the channels: the end of a branch."""

    convs: tuple[Conv, ...]


Part = Conv | Pool | Fork
Branch = Sequence[Part]


def build_branches(
    branches: Sequence[Branch], in_channels: int, style: Style, nested: bool = False
) -> tuple[Concat, int]:
    """The branches as one module, and the number of channels they give together."""
    built: list[list[Step]] = []
    total = 0
    for branch in branches:
        chain: list[Step] = []
        channels = in_channels
        for part in branch:
            if isinstance(part, Fork):
                outputs = [(conv.name, *conv.build(channels, style)) for conv in part.convs]
                chain.append([(name, module) for name, module, _ in outputs])
                channels = sum(depth for _, _, depth in outputs)
            else:
                module, channels = part.build(channels, style)
                chain.append((part.name, module))
        built.append(chain)
        total += channels
    return Concat(built, nested), total


def named(branches: Sequence[Branch]) -> list[list[Part]]:
    """The branches with a name for every part that has none: `branch0`, `branch1_0`, `branch1_1`, …

    The second number is left out in a branch of one part; parts of a fork get `a`, `b`, … behind it.
    """
    result: list[list[Part]] = []
    for number, branch in enumerate(branches):
        chain: list[Part] = []
        for position, part in enumerate(branch):
            name = f"branch{number}" if len(branch) == 1 else f"branch{number}_{position}"
            if isinstance(part, Fork):
                forks = [
                    replace(conv, name=conv.name or name + chr(97 + i)) for i, conv in enumerate(part.convs)
                ]
                chain.append(Fork(tuple(forks)))
            else:
                chain.append(replace(part, name=part.name or name))
        result.append(chain)
    return result


@dataclass(frozen=True)
class Mixed:
    """Branches over one input, joined along the channels.

    Attributes:
        branches: each a chain of convolutions and pools; parts without a name get one by their place.
        stride: by how much every branch divides height and width.
    """

    name: str
    branches: Sequence[Branch]
    stride: int = 1

    def build(self, in_channels: int, style: Style) -> tuple[nn.Module, int]:
        """See `Row.build`."""
        return build_branches(named(self.branches), in_channels, style)


@dataclass(frozen=True)
class Residual:
    """Residual blocks, one after the other.

    Attributes:
        branches: of each block; a linear 1x1 convolution brings them back to the input's channels.
        scale: factor of the branches in the sum with the input.
        count: number of blocks.
        closing: one more block behind them, unscaled and without ReLU (TF-slim's last one).
    """

    name: str
    branches: Sequence[Branch]
    scale: float
    count: int
    closing: bool = False
    stride: int = 1

    def build(self, in_channels: int, style: Style) -> tuple[nn.Module, int]:
        """See `Row.build`."""
        forms = [(self.scale, True)] * self.count + [(1.0, False)] * self.closing
        blocks = []
        for scale, relu in forms:
            branches, channels = build_branches(named(self.branches), in_channels, style)
            blocks.append(ResidualBlock(branches, nn.Conv2d(channels, in_channels, 1), scale, relu))
        return nn.Sequential(*blocks), in_channels


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

    def branches(self, style: Style) -> list[list[Part]]:
        """The four branches as chains of rows."""
        kernel = 3 if style.kernel5 == "3x3" else 5
        wide: list[Part] = [Conv("b5x5", self.n5x5, kernel)]
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
        return build_branches(self.branches(style), in_channels, style, style.nested_names)
