"""Exact rewrites: the same function of the pixels, written so that it costs less.

Each takes a network (or part of one) in evaluation mode and returns a changed copy; the original stays as it
is. Each proof is in the docstring, each test compares on random weights in float64.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inception.data.preprocess import Preprocess
from inception.nets.layers import (
    AvgPool,
    Concat,
    ConvBlock,
    ResidualBlock,
    SameConv2d,
    activate,
    is_pointwise,
    same_padding,
)
from inception.nets.network import Network

Module = TypeVar("Module", bound=nn.Module)


def fold_batch_norm(module: Module) -> Module:
    """A copy in which every batch normalisation has moved into the convolution before it.

    Proof: bn(z) = g (z - m) / sqrt(v + e) + b is affine with fixed numbers in evaluation mode. With
    s = g / sqrt(v + e) and z = W x + c, bn(W x + c) = (s W) x + s (c - m) + b. Padding adds zeros to x, which
    both sides see alike.
    """
    result = copy.deepcopy(module)
    for block in [part for part in result.modules() if isinstance(part, ConvBlock)]:
        if isinstance(block.bn, nn.BatchNorm2d):
            block.conv, block.bn = _folded(block.conv, block.bn), None
    return result


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a batch normalisation without running statistics cannot be folded")
    gain = torch.ones_like(mean) if norm.weight is None else norm.weight.detach()
    offset = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach()
    scale = gain / torch.sqrt(variance + norm.eps)
    before = torch.zeros_like(mean) if conv.bias is None else conv.bias.detach()
    result = copy.deepcopy(conv)
    result.weight = nn.Parameter(conv.weight.detach() * scale[:, None, None, None])
    result.bias = nn.Parameter((before - mean) * scale + offset)
    return result


def fold_residual_scale(module: Module) -> Module:
    """A copy in which every residual block's factor has moved into its last convolution.

    Proof: a (W x + c) = (a W) x + a c.
    """
    result = copy.deepcopy(module)
    for block in [part for part in result.modules() if isinstance(part, ResidualBlock)]:
        with torch.no_grad():
            for parameter in block.up.parameters():
                parameter.mul_(block.scale)
        block.scale = 1.0
    return result


class PooledProjection(nn.Module):
    """1x1 convolution without bias, average pool, bias, ReLU: what `swap_average_pools` makes."""

    def __init__(self, pool: AvgPool, block: ConvBlock) -> None:
        super().__init__()
        self.conv = copy.deepcopy(block.conv)
        bias = torch.zeros(block.conv.out_channels) if block.conv.bias is None else block.conv.bias.detach()
        self.conv.bias = None
        self.pool, self.activation = pool, block.activation
        self.bias = nn.Parameter(bias.clone()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in, N x out_channels x H x W out."""
        return activate(self.pool(self.conv(x)) + self.bias, self.activation)


def swap_average_pools(module: Module) -> Module:
    """A copy in which average pool, then 1x1 convolution became 1x1 convolution, then average pool.

    The pool then runs on fewer channels. Proof: the pool P takes one fixed combination of pixels, the same in
    every channel; the convolution W one fixed combination of channels, the same at every pixel. Sums over
    pixels and over channels may be exchanged: W P x = P W x. The bias is added after the pool, because at the
    border of a pool that counts its zeros the weights of P sum to less than 1.

    Batch normalisation must be folded before. Max pools do not commute with W and stay.
    """
    result = copy.deepcopy(module)
    for concat in [part for part in result.modules() if isinstance(part, Concat)]:
        for path in concat.paths:
            _swap_in(concat, path)
    return result


def _swap_in(concat: Concat, path: list[tuple[str, ...]]) -> None:
    if len(path) != 2 or any(len(names) != 1 for names in path):
        return
    first, second = (getattr(concat, names[0]) for names in path)
    if isinstance(first, AvgPool) and first.stride == 1 and _is_pointwise(second):
        setattr(concat, path[1][0], PooledProjection(first, second))
        delattr(concat, path[0][0])
        del path[0]


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, ConvBlock) and module.bn is None and is_pointwise(module.conv)


class MergedConcat(nn.Module):
    """Branches over one input whose leading 1x1 convolutions run as one: what `merge_siblings` makes."""

    def __init__(self, chains: list[list[nn.Module]], leading: list[int]) -> None:
        super().__init__()
        blocks = [chains[index][0] for index in leading]
        self.merged = _stacked([block for block in blocks if isinstance(block, ConvBlock)])
        self.sizes = [block.conv.out_channels for block in blocks if isinstance(block, ConvBlock)]
        self.leading = leading
        self.rest = nn.ModuleList(
            nn.Sequential(*(chain[1:] if index in leading else chain)) for index, chain in enumerate(chains)
        )

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in, N x (sum of the branches' channels) x H' x W' out."""
        merged = self.merged(x)
        parts, start = dict.fromkeys(range(len(self.rest)), x), 0
        for index, size in zip(self.leading, self.sizes, strict=True):
            parts[index] = merged[:, start : start + size]
            start += size
        return torch.cat([rest(parts[index]) for index, rest in enumerate(self.rest)], dim=1)


def merge_siblings(module: Module) -> Module:
    """A copy in which 1x1 convolutions that read the same input in one module run as one, then split.

    Proof: output channels of a convolution do not depend on each other; the rows of the kernels stacked give
    the outputs stacked, ReLU acts on each number alone. Batch normalisation must be folded before.
    """
    result = copy.deepcopy(module)
    _merge_below(result)
    return result


def _merge_below(module: nn.Module) -> None:
    for name, child in module.named_children():
        if not isinstance(child, Concat):
            _merge_below(child)
            continue
        chains = [_chain(child, path) for path in child.paths]
        leading = [index for index, chain in enumerate(chains) if _is_pointwise(chain[0])]
        if len(leading) > 1:
            setattr(module, name, MergedConcat(chains, leading))


def _chain(concat: Concat, path: list[tuple[str, ...]]) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for names in path:
        parts = [getattr(concat, name) for name in names]
        if len(parts) > 1:
            modules.append(Concat([[pair] for pair in zip(names, parts, strict=True)], nested=False))
        else:
            modules += list(parts[0]) if isinstance(parts[0], nn.Sequential) else parts
    return modules


def _stacked(blocks: Sequence[ConvBlock]) -> ConvBlock:
    first = blocks[0].conv
    channels = sum(block.conv.out_channels for block in blocks)
    conv = nn.Conv2d(first.in_channels, channels, 1, bias=True).to(first.weight.device, first.weight.dtype)
    biases = [
        torch.zeros_like(block.conv.weight[:, 0, 0, 0]) if block.conv.bias is None else block.conv.bias
        for block in blocks
    ]
    with torch.no_grad():
        conv.weight.copy_(torch.cat([block.conv.weight for block in blocks]))
        conv.bias = nn.Parameter(torch.cat(biases))
    return ConvBlock(conv, None, blocks[0].activation)


class PixelNetwork(nn.Module):
    """A network that reads pixels 0..255, the normalisation being part of its first convolution.

    Attributes:
        center: what is subtracted from the pixels first, in_chans values; None where that has moved into the
            first convolution's bias as well.
    """

    center: Tensor | None

    def __init__(self, network: Network, center: Tensor | None) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("center", None if center is None else center[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        """N x C x H x W of any type, values 0..255, in; logits N x num_classes out."""
        x = pixels.to(next(self.network.parameters()).dtype)
        logits: Tensor = self.network(x if self.center is None else x - self.center)
        return logits


def fold_normalization(network: Network, preprocess: Preprocess) -> PixelNetwork:
    """The network on pixels 0..255: `network(preprocess.normalize(pixels))` without the normalisation.

    Proof: normalisation is s (p - m) with s = range / 255 / std and m = 255 mean / range, for each channel.
    The factor moves into the kernel: W (s (p - m)) = (s W) (p - m), zeros of the padding staying zeros. Where
    the first convolution does not pad, every output sees the whole kernel, and
    (s W) (p - m) = (s W) p - (s W) m turns the mean into a bias. Where it pads it must not: the padding is
    zero after normalisation, which is m before it. Then m is subtracted from the pixels, one pass over the
    smallest map there is.
    """
    result = copy.deepcopy(network)
    conv = first_convolution(result)
    weight = conv.weight.detach()
    std = torch.tensor(preprocess.std, dtype=torch.float64)
    factor = preprocess.value_range / 255.0 / std
    mean = torch.tensor(preprocess.mean, dtype=torch.float64) * 255.0 / preprocess.value_range
    scaled = weight.double() * factor[None, :, None, None]
    conv.weight = nn.Parameter(scaled.to(weight.dtype))
    if type(conv) is not nn.Conv2d or any(conv.padding):
        return PixelNetwork(result, mean.to(weight.dtype))
    before = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
    shift = torch.einsum("oihw,i->o", scaled, mean)
    conv.bias = nn.Parameter((before.double() - shift).to(weight.dtype))
    return PixelNetwork(result, None)


class SpaceToDepthConv(nn.Module):
    """A convolution of stride 2 as one of stride 1 over blocks of 2x2 pixels: see `space_to_depth`.

    Attributes:
        fill: rows below and columns on the right that make the sides even.
        pads: left, right, top, bottom, in blocks.
    """

    def __init__(self, conv: nn.Conv2d, size: tuple[int, int]) -> None:
        super().__init__()
        sides = [_blocks(conv, axis, size[axis]) for axis in range(2)]
        kernel, weight = [side.kernel for side in sides], conv.weight.detach()
        wide = torch.zeros(*weight.shape[:2], *(2 * length for length in kernel), dtype=weight.dtype)
        top, left = (side.shift for side in sides)
        wide[:, :, top : top + weight.shape[2], left : left + weight.shape[3]] = weight
        blocked = torch.stack([wide[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], dim=1)
        inputs = 4 * conv.in_channels
        self.conv = nn.Conv2d(inputs, conv.out_channels, (kernel[0], kernel[1]), bias=conv.bias is not None)
        self.conv.weight = nn.Parameter(blocked.flatten(1, 2))
        self.conv.bias = copy.deepcopy(conv.bias)
        self.fill = (size[0] % 2, size[1] % 2)
        self.pads = (sides[1].before, sides[1].after, sides[0].before, sides[0].after)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W of the size it was made for in, N x out_channels x H' x W' out."""
        x = F.pad(x, (0, self.fill[1], 0, self.fill[0]))
        count, channels, height, width = x.shape
        blocks = x.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4)
        x = blocks.reshape(count, 4 * channels, height // 2, width // 2)
        result: Tensor = self.conv(F.pad(x, self.pads))
        return result


class _Blocks(NamedTuple):
    """One axis of a convolution over blocks: zeros before the kernel, its length, padding on both sides."""

    shift: int
    kernel: int
    before: int
    after: int


def _blocks(conv: nn.Conv2d, axis: int, side: int) -> _Blocks:
    kernel, before = conv.kernel_size[axis], int(conv.padding[axis])
    outputs = (side + 2 * before - kernel) // 2 + 1
    if isinstance(conv, SameConv2d):
        before, outputs = same_padding(side, kernel, 2)[0], -(side // -2)
    shift = before % 2
    length, first = (kernel + shift + 1) // 2, (before + shift) // 2
    return _Blocks(shift, length, first, outputs - (side + 1) // 2 - first + length - 1)


def space_to_depth(pixels: PixelNetwork, size: tuple[int, int]) -> PixelNetwork:
    """A copy whose first convolution, of stride 2, reads blocks of 2x2 pixels as four times the channels.

    Engines multiply many channels at once, and an image has 3. Proof: output i reads the rows 2 i + u - p for
    u = 0 .. k - 1. With a zero row put before the kernel where p is odd, p is even; let u = 2 a + r with r in
    {0, 1}: the row is 2 (i + a - p / 2) + r, row r of block i + a - p / 2. So it is a convolution over
    blocks, of stride 1, kernel ceil(k / 2) and padding p / 2, whose channels are (r, s, c), s being the same
    for columns. Rows beyond the image meet a zero of the kernel or are the padding's own zeros.

    A network whose first convolution has another stride, or whose sides are too small, comes back unchanged.
    """
    result = copy.deepcopy(pixels)
    network = result.network
    block = getattr(network, network.endpoints[0])
    conv = block.conv
    if conv.stride != (2, 2) or conv.dilation != (1, 1):
        return result
    if min(_blocks(conv, axis, size[axis]).after for axis in range(2)) < 0:
        return result
    block.conv = SpaceToDepthConv(conv, size)
    return result


def first_convolution(network: Network) -> nn.Conv2d:
    """The convolution that reads the images. Raises ValueError when it is not alone in doing so."""
    block = getattr(network, network.endpoints[0])
    if not isinstance(block, ConvBlock) or block.bn is not None or block.conv.groups != 1:
        raise ValueError("the network must begin with one convolution, its batch normalisation folded")
    return block.conv
