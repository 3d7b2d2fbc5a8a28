"""Layers that train with the kernels: fewer products in 3x3 convolutions, batch norm with ReLU in two passes
over memory, pooling with bytes.

PyTorch makes of batch normalisation and ReLU two layers that read and write the maps about twice as often,
and keeps eight bytes for every pooled value to say where it came from. Numbers agree to rounding (tests hold
them to PyTorch's); names, weights and evaluation are untouched.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inception.nets.layers import Concat, ConvBlock, MaxPool, is_pointwise, same_padding
from inception.train.native.filtered import can_filter, filtered
from inception.train.native.functions import can_normalise, is_map, max_pool, norm_relu

_LARGEST_KERNEL = 16
"""Of a pool: a place in the window must fit into a byte (the same name in `max_pool.c`)."""


def fuse(network: nn.Module) -> None:
    """Let the convolution blocks, modules and max pools of `network` train with the kernels.

    Only the class of a module changes. In evaluation mode, on other devices and number types, with frozen
    statistics and with statistics shared between processes, the modules work as before. In training mode
    `torch.fx` cannot follow a fused network.
    """
    for module in network.modules():
        if type(module) is ConvBlock and module.activation == "relu" and _is_usual(module.bn):
            module.__class__ = FusedConvBlock
        elif type(module) is MaxPool and module.kernel <= _LARGEST_KERNEL:
            module.__class__ = FusedMaxPool
        elif type(module) is Concat:
            module.__class__ = FusedConcat


def _is_usual(norm: nn.Module | None) -> bool:
    """Whether it is a batch norm over this process's batch with all that the kernels work on."""
    return type(norm) is nn.BatchNorm2d and norm.weight is not None and norm.momentum is not None


class FusedConvBlock(ConvBlock):
    """`ConvBlock` that trains with the kernels: batch normalisation and ReLU are one of them."""

    def forward(self, x: Tensor) -> Tensor:
        """See `ConvBlock.forward`."""
        if not learns_statistics(self):
            return super().forward(x)
        return normalised(convolved(self.conv, x), [self])[0]


def convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution, by minimal filtering where that can be."""
    return filtered(x, conv) if can_filter(x, conv) else conv(x)


def learns_statistics(block: FusedConvBlock) -> bool:
    """Whether a block normalises with the statistics of the batch it is given."""
    norm = block.bn
    return block.training and norm is not None and norm.training and _is_usual(norm)


def normalised(x: Tensor, blocks: list[FusedConvBlock]) -> tuple[Tensor, ...]:
    """Batch norm and ReLU of `blocks`, for whose convolutions `x` holds the outputs side by side."""
    norms = [block.bn for block in blocks if block.bn is not None]
    if can_normalise(x, norms):
        return norm_relu(x, norms)
    parts = torch.split(x, [norm.num_features for norm in norms], dim=1)
    return tuple(F.relu(norm(part), inplace=True) for norm, part in zip(norms, parts, strict=True))


class FusedConcat(Concat):
    """`Concat` in which the 1x1 convolutions that read its input run as one in training."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Concat.forward`."""
        leading = {index: block for index, path in enumerate(self.paths) if (block := self._sibling(path))}
        if len(leading) < 2:
            return super().forward(x)
        blocks = list(leading.values())
        weights = torch.cat([block.conv.weight for block in blocks])
        parts = dict(zip(leading, normalised(F.conv2d(x, weights), blocks), strict=True))
        outputs = [
            self._behind_first(parts[index], path) if index in parts else self.forward_branch(x, path)
            for index, path in enumerate(self.paths)
        ]
        return torch.cat(outputs, dim=1)

    def _sibling(self, path: list[tuple[str, ...]]) -> FusedConvBlock | None:
        """The 1x1 convolution that a branch begins with."""
        first = getattr(self, path[0][0])
        if isinstance(first, nn.Sequential):
            first = first[0]
        alone = len(path[0]) == 1 and isinstance(first, FusedConvBlock) and learns_statistics(first)
        return first if alone and _can_be_stacked(first.conv) else None

    def _behind_first(self, x: Tensor, path: list[tuple[str, ...]]) -> Tensor:
        first = getattr(self, path[0][0])
        if isinstance(first, nn.Sequential):
            for module in list(first)[1:]:
                x = module(x)
        return self.forward_branch(x, path[1:])


def _can_be_stacked(conv: nn.Conv2d) -> bool:
    plain = type(conv) is nn.Conv2d and conv.padding == (0, 0) and conv.bias is None
    return plain and is_pointwise(conv)


class FusedMaxPool(MaxPool):
    """`MaxPool` that remembers the place of each maximum in a byte."""

    def forward(self, x: Tensor) -> Tensor:
        """See `MaxPool.forward`."""
        if not self.training or not x.requires_grad or not is_map(x):
            return super().forward(x)
        images, channels, in_height, in_width = x.shape
        (top, height), (left, width) = self._windows(in_height), self._windows(in_width)
        if min(height, width) < 1:  # PyTorch says what is wrong
            return super().forward(x)
        return max_pool(
            x, (images, in_height, in_width, channels, height, width, self.kernel, self.stride, top, left)
        )

    def _windows(self, side: int) -> tuple[int, int]:
        """Padding before the image and number of windows, along a side of so many pixels."""
        if self.stride == 1:
            return self.border, side + 2 * self.border - self.kernel + 1
        if self.padding == "same":
            return same_padding(side, self.kernel, self.stride)[0], -(side // -self.stride)
        room = side - self.kernel
        if self.padding == "floor":
            return 0, room // self.stride + 1
        windows = -(room // -self.stride) + 1
        # PyTorch leaves out a window that would begin behind the image.
        return 0, windows - ((windows - 1) * self.stride >= side)
