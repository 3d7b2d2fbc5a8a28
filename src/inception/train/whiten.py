"""A first convolution that need not be learnt: the principal components of the images' patches."""

import torch
from torch import Tensor, nn

from inception.errors import UsageError

_FLOOR = 5e-4
"""Added to the variances: components that hardly occur are not blown up into noise."""


def first_convolution(network: nn.Module) -> nn.Conv2d:
    """The convolution that reads the images."""
    return next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))


@torch.no_grad()
def whiten(network: nn.Module, images: Tensor) -> None:
    """Give the first convolution the strongest components of the patches of `images`, and their negatives.

    Each filter's answers then have variance 1 and are uncorrelated with the other components'; with both
    signs nothing is lost in the ReLU behind it. Filters beyond two a component keep their random weights.
    The weights are fixed from here on (`requires_grad` off); a bias stays trainable.

    Source: Coates and Ng 2012, "Learning Feature Representations with K-means", section 2.1 (whitened
    patches); as a fixed first layer in the CIFAR-10 speed runs of Page 2019 and Jordan 2024.

    Args:
        images: float32 N x C x H x W as the network sees them (normalised), some thousands.

    Raises UsageError when the first convolution has fewer than two filters.
    """
    layer = first_convolution(network)
    height, width = layer.kernel_size
    patches = images.unfold(2, height, 1).unfold(3, width, 1)
    rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, layer.in_channels * height * width).double()
    rows = rows - rows.mean(0)
    variances, components = torch.linalg.eigh(rows.T @ rows / len(rows))
    count = min(layer.out_channels // 2, len(variances))
    if count < 1:
        raise UsageError("--whiten needs a first convolution of two filters or more")
    scaled = (components / torch.sqrt(variances + _FLOOR)).T.flip(0)[:count]
    filters = scaled.reshape(count, layer.in_channels, height, width).to(layer.weight.dtype)
    layer.weight[: 2 * count] = torch.cat([filters, -filters])
    layer.weight.requires_grad_(False)
