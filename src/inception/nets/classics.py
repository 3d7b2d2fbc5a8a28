"""What the Inception networks are compared with: LeNet-5, AlexNet, Network in Network, VGG."""

from dataclasses import replace

from inception.nets.architecture import Architecture
from inception.nets.heads import Hidden
from inception.nets.rows import Conv, Lrn, Pool, Row, Style

# LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", Figure 2.
# deviation: as usual today, the second convolution sees all maps of the first, pools have no weights, and the
# classifier is linear with softmax instead of radial basis functions.
LENET_5 = Architecture(
    "LeNet-5 as it is usually built: two 5x5 convolutions, average pools, tanh; 10 outputs.",
    rows=(
        Conv("conv1", 6, 5),
        Pool("pool1", 2, stride=2, kind="average"),
        Conv("conv2", 16, 5, pad=0),
        Pool("pool2", 2, stride=2, kind="average"),
    ),
    style=Style(activation="tanh"),
    head=Hidden((120, 84), grid=5),
    dropout=0.0,
    num_classes=10,
    image_sizes=(28, 28),
    min_sizes={"floor": (12, 12), "ceil": (9, 9), "same": (1, 1)},
)

# Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", Figure 2, in
# Caffe's order (response normalisation before pooling); two groups stand for the two graphics cards.
ALEXNET = Architecture(
    "AlexNet as in the paper: two groups, response normalisation, 227x227 images.",
    rows=(
        Conv("conv1", 96, 11, stride=4, pad=0),
        Lrn("norm1"),
        Pool("pool1", 3, stride=2),
        Conv("conv2", 256, 5, groups=2),
        Lrn("norm2"),
        Pool("pool2", 3, stride=2),
        Conv("conv3", 384, 3),
        Conv("conv4", 384, 3, groups=2),
        Conv("conv5", 256, 3, groups=2),
        Pool("pool5", 3, stride=2),
    ),
    small_stem={"conv1": Conv("conv1", 96, 3)},
    head=Hidden((4096, 4096), grid=6, dropout=0.5),
    small_head=Hidden((4096, 4096), grid=3, dropout=0.5),
    dropout=0.5,
    image_sizes=(227, 32),
    min_sizes={"ceil": (39, 8), "floor": (67, 15), "same": (1, 1)},
)

# Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks".
ALEXNET_TV = replace(
    ALEXNET,
    title="AlexNet in one tower, as torchvision has it: no groups, no response normalisation.",
    rows=(
        Conv("conv1", 64, 11, stride=4, pad=2),
        Pool("pool1", 3, stride=2),
        Conv("conv2", 192, 5),
        Pool("pool2", 3, stride=2),
        Conv("conv3", 384, 3),
        Conv("conv4", 256, 3),
        Conv("conv5", 256, 3),
        Pool("pool5", 3, stride=2),
    ),
    small_stem={"conv1": Conv("conv1", 64, 3)},
    head=Hidden((4096, 4096), grid=6, dropout=0.5, dropout_first=True),
    small_head=Hidden((4096, 4096), grid=3, dropout=0.5, dropout_first=True),
    dropout=0.0,
    image_sizes=(224, 32),
    min_sizes={"floor": (63, 15), "ceil": (35, 8), "same": (1, 1)},
)


def _mlpconv(number: int, channels: int, kernel: int, stride: int = 1, pad: int | None = None) -> list[Row]:
    """Network in Network's layer: a convolution and a small network (two 1x1) on every position."""
    return [
        Conv(f"conv{number}", channels, kernel, stride, pad),
        Conv(f"cccp{number}_1", channels, 1),
        Conv(f"cccp{number}_2", channels, 1),
    ]


# Lin et al. 2014, "Network In Network"; widths of the authors' ImageNet model with 384 at the end, as in
# "Dive into Deep Learning".
NIN = Architecture(
    "Network in Network: small networks of 1x1 convolutions, global average pooling for a classifier.",
    rows=(
        *_mlpconv(1, 96, 11, stride=4, pad=0),
        Pool("pool1", 3, stride=2),
        *_mlpconv(2, 256, 5),
        Pool("pool2", 3, stride=2),
        *_mlpconv(3, 384, 3),
        Pool("pool3", 3, stride=2),
    ),
    small_stem={"conv1": Conv("conv1", 96, 5)},
    head="convolutional",
    dropout=0.5,
    min_sizes={"floor": (67, 15), "ceil": (39, 8), "same": (1, 1)},
)

# Simonyan and Zisserman 2015, "Very Deep Convolutional Networks", Table 1: 3x3 convolutions before each of
# the five pools, columns A, B, D and E.
VGG_WIDTHS = (64, 128, 256, 512, 512)
VGG_DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


def _vgg_rows(depths: tuple[int, ...]) -> tuple[Row, ...]:
    rows: list[Row] = []
    for block, (depth, channels) in enumerate(zip(depths, VGG_WIDTHS, strict=True), start=1):
        rows += [Conv(f"conv{block}_{number}", channels, 3) for number in range(1, depth + 1)]
        rows.append(Pool(f"pool{block}", 2, stride=2))
    return tuple(rows)


def _vgg(name: str, batch_norm: bool) -> Architecture:
    return Architecture(
        f"VGG with {name.removeprefix('vgg')} layers of 3x3 convolutions"
        + (", batch-normalised." if batch_norm else "."),
        rows=_vgg_rows(VGG_DEPTHS[name]),
        style=Style(batch_norm=batch_norm, bn_eps=1e-5, bias=True),
        head=Hidden((4096, 4096), grid=7, dropout=0.5),
        small_head=Hidden((4096, 4096), grid=1, dropout=0.5),
        dropout=0.5,
        min_sizes={"floor": (32, 32), "ceil": (1, 1), "same": (1, 1)},
    )


ARCHITECTURES = {
    "lenet5": LENET_5,
    "nin": NIN,
    "alexnet": ALEXNET,
    "alexnet_tv": ALEXNET_TV,
    **{name: _vgg(name, batch_norm=False) for name in VGG_DEPTHS},
    **{f"{name}_bn": _vgg(name, batch_norm=True) for name in VGG_DEPTHS},
}
