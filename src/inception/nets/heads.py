"""What stands on top of the feature maps: the classifier and the auxiliary classifiers."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inception.nets.layers import Activation, activate
from inception.nets.rows import Style, conv_block

AuxPool = Literal["5/3", "adaptive"]
AUX_GRID, CONVOLUTIONAL_AUX_GRID = 4, 5


@torch.fx.wrap
def pool_to_grid(x: Tensor, rule: str, side: int = AUX_GRID) -> Tensor:
    """Average-pool N x C x H x W to N x C x 4 x 4 (`side`); `rule` is an `AuxPool`.

    `5/3` is the paper's window (5x5, stride 3), which gives 4x4 on maps of 14 to 16 pixels a side.
    deviation: on other sizes, where it would not give 4x4, adaptive windows are used, so that a network with
    auxiliary heads trains at any input size.
    """
    height, width = (x.shape[2] - 5) // 3 + 1, (x.shape[3] - 5) // 3 + 1
    if rule == "5/3" and height == side and width == side:
        return F.avg_pool2d(x, 5, 3)
    return F.adaptive_avg_pool2d(x, side)


@torch.fx.wrap
def pool_to_at_least(x: Tensor, side: int) -> Tensor:
    """Average-pool N x C x H x W with 5x5 windows at stride 3, or adaptively to `side` where that is less.

    deviation: torchvision refuses smaller maps, TF-slim shrinks the next convolution's kernel; here a network
    with its auxiliary head trains at any input size, and weights fit at any size.
    """
    if min(x.shape[2:]) >= 5 + 3 * (side - 1):
        return F.avg_pool2d(x, 5, 3)
    return F.adaptive_avg_pool2d(x, side)


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
        self.num_features = hidden
        self.fc1 = nn.Linear(channels * AUX_GRID * AUX_GRID, hidden)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = classifier(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map N x C x H x W in, logits N x num_classes out."""
        x = self.conv(pool_to_grid(x, self.pool))
        x = F.relu(self.fc1(torch.flatten(x, 1)), inplace=True)
        logits: Tensor = self.fc2(self.dropout(x))
        return logits

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.fc2

    def set_classifier(self, module: nn.Module) -> None:
        """Replace the last linear layer."""
        self.fc2 = module


class ConvolutionalAuxiliaryHead(nn.Module):
    """Auxiliary classifier of Inception-v3 and later: 5x5/3 average pool, 1x1 and 5x5 convolutions, linear.

    Source: TF-slim; the 5x5 convolution of 768 channels covers the whole 5x5 map of 299-pixel images and so
    is the paper's fully connected layer, batch-normalised (Szegedy et al. 2016, section 4). Names as in
    torchvision's `InceptionAux`.
    """

    def __init__(self, in_channels: int, num_classes: int, style: Style) -> None:
        super().__init__()
        channels, hidden = style.depth(128), style.depth(768)
        self.num_features = hidden
        self.conv0 = conv_block(in_channels, channels, 1, 1, style)
        # Unpadded whatever the network's rule: its window is the whole map.
        self.conv1 = conv_block(
            channels, hidden, CONVOLUTIONAL_AUX_GRID, 1, replace(style, padding="floor"), pad=0
        )
        self.fc = classifier(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map N x C x H x W in, logits N x num_classes out."""
        x = self.conv0(pool_to_at_least(x, CONVOLUTIONAL_AUX_GRID))
        logits: Tensor = self.fc(self.conv1(x).mean((2, 3)))
        return logits

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.fc

    def set_classifier(self, module: nn.Module) -> None:
        """Replace the last linear layer."""
        self.fc = module


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
        self.pooled = True
        self.map_size = map_size
        self.linear = nn.Linear(in_channels * map_size * map_size, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x map_size x map_size in, N x hidden out, values >= 0; ValueError for another map size."""
        if not self.pooled:
            return x
        return F.relu(self.linear(flatten_map(x, self.map_size)), inplace=True)


@dataclass(frozen=True)
class Hidden:
    """Hidden layers between the map and the classifier, as in AlexNet and VGG.

    Attributes:
        sizes: width of each layer.
        grid: side to which the map is average-pooled first; the map's own side at the network's image size,
            where it changes nothing (torchvision's way of accepting other sizes).
        dropout: share dropped around the hidden layers.
        dropout_first: drop before each hidden layer (torchvision's AlexNet), not after all but the last.
    """

    sizes: tuple[int, ...]
    grid: int
    dropout: float = 0.0
    dropout_first: bool = False


class HiddenHead(nn.Module):
    """The map through hidden fully connected layers: AlexNet's and VGG's heads, LeNet's tail."""

    def __init__(self, in_channels: int, hidden: Hidden, style: Style) -> None:
        super().__init__()
        self.pooled = True
        self.grid = hidden.grid
        self.activation: Activation = style.activation
        self.dropout_first = hidden.dropout_first
        self.dropout = nn.Dropout(hidden.dropout)
        width = in_channels * hidden.grid**2
        self.layers: list[str] = []
        for number, size in enumerate(hidden.sizes, start=1):
            depth = style.depth(size)
            self.layers.append(f"linear{number}")
            self.add_module(self.layers[-1], nn.Linear(width, depth))
            width = depth
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W in; N x (last layer's width) out, or the map itself when pooling is switched off."""
        if not self.pooled:
            return x
        x = torch.flatten(F.adaptive_avg_pool2d(x, self.grid), 1)
        for number, name in enumerate(self.layers):
            if self.dropout_first or number > 0:
                x = self.dropout(x)
            x = activate(getattr(self, name)(x), self.activation)
        return x


class ConvolutionalClassifier(nn.Module):
    """Network in Network's classifier: a 3x3 convolution and two 1x1, one channel a class, then the mean.

    Source: Lin et al. 2014, "Network In Network", section 3.2 (global average pooling).
    """

    def __init__(self, in_channels: int, num_classes: int, style: Style) -> None:
        super().__init__()
        self.conv = conv_block(in_channels, num_classes, 3, 1, style)
        self.cccp1 = conv_block(num_classes, num_classes, 1, 1, style)
        self.cccp2 = conv_block(num_classes, num_classes, 1, 1, style)
        self.pool = PooledHead(num_classes, pooled=True)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map N x C x H x W in, logits N x num_classes out, values >= 0."""
        logits: Tensor = self.pool(self.cccp2(self.cccp1(self.conv(x))))
        return logits


@torch.fx.wrap
def flatten_map(x: Tensor, side: int) -> Tensor:
    """N x C x side x side in, N x (C * side * side) out; ValueError for a map of another size."""
    if x.shape[2] != side or x.shape[3] != side:
        raise ValueError(
            f"the fully connected head needs maps of {side} x {side}, got {x.shape[2]} x {x.shape[3]}; "
            "use images of the size the network was built for, or build it with another image_size"
        )
    return torch.flatten(x, 1)
