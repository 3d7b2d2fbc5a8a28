"""A network applied everywhere on a larger image: its classifier as a convolution over the feature map."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inception.nets.heads import (
    ConvolutionalClassifier,
    FullyConnectedHead,
    HiddenHead,
    PooledHead,
)
from inception.nets.layers import activate
from inception.nets.network import Network


def dense_logits(network: Network, images: Tensor) -> Tensor:
    """Logits at every place of the feature map that the network's own window fits.

    Fully connected layers become convolutions and the average over the map a pool of stride 1 (Sermanet et
    al. 2014, section 3; Simonyan & Zisserman 2015, section 3.2; `spatial_squeeze=False` in TF-slim). At the
    network's own image size there is one place, with the ordinary logits.

    Args:
        network: in evaluation mode, with a classifier.
        images: normalised float N x in_chans x H x W, at least as large as the network's own images.

    Returns N x num_classes x H' x W'. Raises ValueError for a network in training mode or without classifier,
    or images that are too small.
    """
    if network.training or network.num_classes == 0 or not network.head.pooled:
        raise ValueError("dense logits need a network in evaluation mode, with its pool and classifier")
    window = _window(network)
    x = network.forward_features(images)
    if min(x.shape[2:]) < window:
        raise ValueError(
            f"images of {images.shape[2]} x {images.shape[3]} are smaller than the network's own "
            f"{network.image_size} x {network.image_size}"
        )
    if isinstance(network.fc, ConvolutionalClassifier):
        classifier = network.fc
        maps = classifier.cccp2(classifier.cccp1(classifier.conv(x)))
        return F.avg_pool2d(maps, window, stride=1)
    weight, bias = network.fc.get_parameter("weight"), network.fc.get_parameter("bias")
    return F.conv2d(_hidden(network.head, x, window), weight[:, :, None, None], bias)


def _window(network: Network) -> int:
    """Side of the feature map for images of the network's own size."""
    head = network.head
    if isinstance(head, FullyConnectedHead):
        return head.map_size
    if isinstance(head, HiddenHead):
        return head.grid
    side = network.image_size
    probe = torch.zeros(1, network.in_chans, side, side, device="meta")
    return int(copy.deepcopy(network).to("meta").forward_features(probe).shape[-1])


def _hidden(head: PooledHead | FullyConnectedHead | HiddenHead, x: Tensor, window: int) -> Tensor:
    """The features before the classifier, at every place."""
    if isinstance(head, PooledHead):
        return F.avg_pool2d(x, window, stride=1)
    if isinstance(head, FullyConnectedHead):
        return F.relu(_as_convolution(head.linear, x, window))
    for name in head.layers:
        x = activate(_as_convolution(getattr(head, name), x, window), head.activation)
        window = 1
    return x


def _as_convolution(linear: nn.Linear, x: Tensor, window: int) -> Tensor:
    """A linear layer over flattened C x window x window maps, at every place of `x`."""
    return F.conv2d(x, linear.weight.view(linear.out_features, -1, window, window), linear.bias)
