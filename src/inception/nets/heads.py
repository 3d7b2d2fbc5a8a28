"""What stands on top of the feature maps: the classifier and the auxiliary classifiers."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inception.nets.rows import Style, conv_block

AuxPool = Literal["5/3", "adaptive"]
AUX_GRID = 4


@torch.fx.wrap
def pool_to_grid(x: Tensor, rule: AuxPool) -> Tensor:
    """Average-pool N x C x H x W to N x C x 4 x 4.

    `5/3` is the paper's window (5x5, stride 3), which gives 4x4 on maps of 14 to 16 pixels a side.
    deviation: on other sizes, where it would not give 4x4, adaptive windows are used, so that a network with
    auxiliary heads trains at any input size.
    """
    windows_fit = all((side - 5) // 3 + 1 == AUX_GRID for side in x.shape[2:])
    if rule == "5/3" and windows_fit:
        return F.avg_pool2d(x, 5, 3)
    return F.adaptive_avg_pool2d(x, AUX_GRID)


def classifier(in_features: int, num_classes: int) -> nn.Module:
    """The last linear layer, or with num_classes 0 nothing, so that the features themselves come out."""
    return nn.Linear(in_features, num_classes) if num_classes > 0 else nn.Identity()


class AuxiliaryHead(nn.Module):
    """Auxiliary classifier: average pool to 4x4, 1x1 convolution, fully connected, dropout, classifier.

    Source: Szegedy et al. 2015, section 5 (128 channels, 1024 units, 70% of
    outputs dropped).
    """

    def __init__(
        self, in_channels: int, num_classes: int, style: Style, pool: AuxPool, dropout: float
    ) -> None:
        super().__init__()
        channels, hidden = style.depth(128), style.depth(1024)
        self.pool: AuxPool = pool
        self.conv = conv_block(in_channels, channels, 1, 1, style)
        self.fc1 = nn.Linear(channels * AUX_GRID * AUX_GRID, hidden)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = classifier(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map N x C x H x W in, logits N x num_classes out."""
        x = self.conv(pool_to_grid(x, self.pool))
        x = F.relu(self.fc1(torch.flatten(x, 1)), inplace=True)
        logits: Tensor = self.fc2(self.dropout(x))
        return logits


class PooledHead(nn.Module):
    """Global average pooling (to N x C), the paper's replacement for fully connected layers (section 5)."""

    def __init__(self, num_features: int, pooled: bool) -> None:
        super().__init__()
        self.num_features = num_features
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in; N x C out, or the map itself when pooling is switched off."""
        return x.mean((2, 3)) if self.pooled else x


class FullyConnectedHead(nn.Module):
    """Ablation: the flattened map through a fully connected layer, as networks before this one ended."""

    def __init__(self, in_channels: int, map_size: int, hidden: int) -> None:
        super().__init__()
        self.num_features = hidden
        self.map_size = map_size
        self.linear = nn.Linear(in_channels * map_size * map_size, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x map_size x map_size in, N x hidden out, values >= 0; ValueError for another map size."""
        return F.relu(self.linear(flatten_map(x, self.map_size)), inplace=True)


@torch.fx.wrap
def flatten_map(x: Tensor, side: int) -> Tensor:
    """N x C x side x side in, N x (C * side * side) out; ValueError for a map of another size."""
    if x.shape[2] != side or x.shape[3] != side:
        raise ValueError(
            f"the fully connected head needs maps of {side} x {side}, got {x.shape[2]} x {x.shape[3]}; "
            "use images of the size the network was built for, or build it with another image_size"
        )
    return torch.flatten(x, 1)
