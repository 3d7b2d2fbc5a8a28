"""A network applied everywhere on a larger image: its classifier reads every window of the feature map."""

from torch import Tensor

from inception.nets.complexity import endpoint_shapes
from inception.nets.network import Network


def map_window(network: Network, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the last feature map for images of this size; nothing is computed."""
    _, rows, columns = endpoint_shapes(network, (height, width))[network.endpoints[-1]]
    return rows, columns


def dense_logits(network: Network, images: Tensor, window: tuple[int, int] | None = None) -> Tensor:
    """Logits of every window of the feature map that is as large as the map of the network's own images.

    The stages run once on the whole images. For most heads this is the network with its fully connected
    layers as convolutions (Sermanet et al. 2014, section 3; Simonyan & Zisserman 2015, section 3.2;
    `spatial_squeeze=False` in TF-slim). At the network's own image size there is one window, with the
    ordinary logits.

    Args:
        network: in evaluation mode, with its pool.
        images: normalised float N x in_chans x H x W.
        window: rows and columns of a window of the map; None: `map_window` of its own image size.

    Returns N x num_classes x H' x W'. Raises ValueError for a network in training mode or without its pool,
    or images smaller than a window.
    """
    if network.training or not network.head.pooled:
        raise ValueError("dense logits need a network in evaluation mode, with its pool")
    rows, columns = window or map_window(network, network.image_size, network.image_size)
    maps = network.forward_features(images)
    if maps.shape[2] < rows or maps.shape[3] < columns:
        raise ValueError(
            f"images of {images.shape[2]} x {images.shape[3]} have a map of {maps.shape[2]} x "
            f"{maps.shape[3]}, less than a window of {rows} x {columns}: make them larger"
        )
    windows = maps.unfold(2, rows, 1).unfold(3, columns, 1)  # N x C x H' x W' x rows x columns
    count, _, down, across, _, _ = windows.shape
    logits = network.forward_head(windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).contiguous())
    return logits.view(count, down, across, -1).permute(0, 3, 1, 2)
