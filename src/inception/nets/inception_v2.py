"""Inception-v2 (BN-Inception): Ioffe and Szegedy 2015, "Batch Normalization", in its two published widths."""

from dataclasses import replace
from typing import Literal

from inception.nets.architecture import Architecture, Changes, changed
from inception.nets.blocks import Mixed, Part
from inception.nets.endpoints import INCEPTION_V2_ALIASES
from inception.nets.rows import Conv, Pool, Row, SeparableConv, Style


def _module(
    name: str,
    n1x1: int,
    reduce3x3: int,
    n3x3: int,
    reduce_double: int,
    double: int,
    pool: Literal["average", "max"],
    pool_proj: int,
    stride: int = 1,
) -> Mixed:
    """One line of the table; where `n1x1` and `pool_proj` are 0 there is no such convolution.

    Strided pools follow the SAME rule, which on the even maps of 224-pixel images is Caffe's ceil-mode and on
    odd ones gives maps of the convolutions' size.
    """
    pooled: list[Part] = [Pool("pool", 3, stride, pool, padding=None if stride == 1 else "same")]
    if pool_proj:
        pooled.append(Conv("pool_proj", pool_proj, 1))
    single = [Conv("b1x1", n1x1, 1)] if n1x1 else []
    branches = (
        single,
        [Conv("b3x3_reduce", reduce3x3, 1), Conv("b3x3", n3x3, 3, stride)],
        [
            Conv("double3x3_reduce", reduce_double, 1),
            Conv("double3x3a", double, 3),
            Conv("double3x3b", double, 3, stride),
        ],
        pooled,
    )
    return Mixed(name, tuple(branch for branch in branches if branch), stride)


# Columns:                #1x1  #3x3 reduce  #3x3  double reduce  double  pool  proj  stride
TABLE: tuple[Row, ...] = (
    Conv("conv1", 64, kernel=7, stride=2),
    Pool("maxpool1", kernel=3, stride=2),
    Conv("conv2", 64, kernel=1),
    Conv("conv3", 192, kernel=3),
    Pool("maxpool2", kernel=3, stride=2),
    _module("inception3a", 64, 64, 64, 64, 96, "average", 32),
    _module("inception3b", 64, 64, 96, 64, 96, "average", 64),
    _module("inception3c", 0, 128, 160, 64, 96, "max", 0, 2),
    _module("inception4a", 224, 64, 96, 96, 128, "average", 128),
    _module("inception4b", 192, 96, 128, 96, 128, "average", 128),
    _module("inception4c", 160, 128, 160, 128, 160, "average", 96),
    _module("inception4d", 96, 128, 192, 160, 192, "average", 96),
    _module("inception4e", 0, 128, 192, 192, 256, "max", 0, 2),
    _module("inception5a", 352, 192, 320, 160, 224, "average", 128),
    _module("inception5b", 352, 192, 320, 192, 224, "max", 128),
)

# The Caffe model is wider in two pool projections: 608, 608 and 1056 channels for 576, 576 and 1024.
CAFFE_ROWS: Changes = {
    "inception4c": _module("inception4c", 160, 128, 160, 128, 160, "average", 128),
    "inception4d": _module("inception4d", 96, 128, 192, 160, 192, "average", 128),
}

SMALL_STEM: Changes = {"conv1": Conv("conv1", 64, kernel=3), "maxpool1": None}
SEPARABLE_STEM: Changes = {"conv1": SeparableConv("conv1", 64, kernel=7, stride=2)}

INCEPTION_V2 = Architecture(
    "Inception-v2 (BN-Inception) with TF-slim's channels (576, 576, 1024): two 3x3 for 5x5, batch norm.",
    rows=TABLE,
    style=Style(batch_norm=True),
    small_stem=SMALL_STEM,
    variants={"separable": {False: {}, True: SEPARABLE_STEM}},
    min_sizes={"same": (1, 1), "ceil": (7, 2), "floor": (13, 3)},
    aliases=INCEPTION_V2_ALIASES,
)
INCEPTION_V2_CAFFE = replace(
    INCEPTION_V2,
    title="Inception-v2 (BN-Inception) with Caffe's channels (608, 608, 1056), biases beside batch norm.",
    rows=changed(TABLE, CAFFE_ROWS),
    style=Style(batch_norm=True, bn_eps=1e-5, bias=True, count_include_pad=True),
    min_sizes={"ceil": (7, 2), "floor": (13, 3), "same": (1, 1)},
)

ARCHITECTURES = {"inception_v2": INCEPTION_V2, "inception_v2_caffe": INCEPTION_V2_CAFFE}
