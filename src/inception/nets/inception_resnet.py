"""Inception-ResNet-v1 and v2: Szegedy et al. 2017 (as Inception-v4), in the paper's layout and TF-slim's."""

from dataclasses import replace

from inception.nets import inception_v3, inception_v4
from inception.nets.architecture import Architecture, Changes
from inception.nets.blocks import Mixed, Residual
from inception.nets.endpoints import with_snake_case
from inception.nets.inception_v4 import AVERAGE, conv, pool
from inception.nets.rows import Conv, Pool, Row, Style

# Figures 10, 11 and 13: the blocks of version 1.
V1_BLOCK_35 = ((conv(32, 1),), (conv(32, 1), conv(32, 3)), (conv(32, 1), conv(32, 3), conv(32, 3)))
V1_BLOCK_17 = ((conv(128, 1),), (conv(128, 1), conv(128, (1, 7)), conv(128, (7, 1))))
V1_BLOCK_8 = ((conv(192, 1),), (conv(192, 1), conv(192, (1, 3)), conv(192, (3, 1))))

# Figures 16, 17 and 19: the blocks of version 2.
V2_BLOCK_35 = ((conv(32, 1),), (conv(32, 1), conv(32, 3)), (conv(32, 1), conv(48, 3), conv(64, 3)))
V2_BLOCK_17 = ((conv(192, 1),), (conv(128, 1), conv(160, (1, 7)), conv(192, (7, 1))))
V2_BLOCK_8 = ((conv(192, 1),), (conv(192, 1), conv(224, (1, 3)), conv(256, (3, 1))))


def _reduction_a(k: int, l: int, m: int, n: int, stride: int = 2) -> Mixed:  # noqa: E741 - the paper's
    """Figure 7; the letters are those of the paper's Table 1."""
    branches = (
        (conv(n, 3, stride=stride, pad=0),),
        (conv(k, 1), conv(l, 3), conv(m, 3, stride=stride, pad=0)),
        (pool(3, stride=stride, pad=0),),
    )
    return Mixed("Mixed_6a", branches, stride=stride)


def _dilated(branches: tuple[tuple[Conv, ...], ...], dilation: int) -> tuple[tuple[Conv, ...], ...]:
    return tuple(tuple(replace(part, dilation=dilation) for part in branch) for branch in branches)


def _reduction_b(single: int, inner: int, double: int) -> Mixed:
    """Figures 12 and 18: widths of the second branch's end, and of the third's middle and end."""
    branches = (
        (conv(256, 1), conv(384, 3, stride=2, pad=0)),
        (conv(256, 1), conv(single, 3, stride=2, pad=0)),
        (conv(256, 1), conv(inner, 3), conv(double, 3, stride=2, pad=0)),
        (pool(3, stride=2),),
    )
    return Mixed("Mixed_7a", branches, stride=2)


# TF-slim's module between its stem, which is Inception-v3's, and the residual blocks.
SLIM_MIXED_5B = Mixed(
    "Mixed_5b",
    (
        (conv(96, 1),),
        (conv(48, 1), conv(64, 5)),
        (conv(64, 1), conv(96, 3), conv(96, 3)),
        (AVERAGE, conv(64, 1)),
    ),
)

# Figure 14, the stem of version 1.
V1_STEM: tuple[Row, ...] = (
    Conv("Conv2d_1a_3x3", 32, 3, stride=2, pad=0),
    Conv("Conv2d_2a_3x3", 32, 3, pad=0),
    Conv("Conv2d_2b_3x3", 64, 3),
    Pool("MaxPool_3a_3x3", 3, stride=2),
    Conv("Conv2d_3b_1x1", 80, 1),
    Conv("Conv2d_4a_3x3", 192, 3, pad=0),
    Conv("Conv2d_4b_3x3", 256, 3, stride=2, pad=0),
)

V1_TABLE: tuple[Row, ...] = (
    *V1_STEM,
    Residual("Block35", V1_BLOCK_35, scale=0.17, count=5),
    _reduction_a(192, 192, 256, 384),
    Residual("Block17", V1_BLOCK_17, scale=0.10, count=10),
    _reduction_b(256, 256, 256),
    Residual("Block8", V1_BLOCK_8, scale=0.20, count=5, closing=True),
)

V2_TABLE: tuple[Row, ...] = (
    *inception_v3.STEM,
    SLIM_MIXED_5B,
    Residual("Block35", V2_BLOCK_35, scale=0.17, count=10),
    _reduction_a(256, 256, 384, 384),
    Residual("PreAuxLogits", V2_BLOCK_17, scale=0.10, count=20),
    _reduction_b(288, 288, 320),
    Residual("Block8", V2_BLOCK_8, scale=0.20, count=9, closing=True),
    Conv("Conv2d_7b_1x1", 1536, 1),
)

# For dense prediction, as in TF-slim: dilated convolutions on maps of 33x33 for 17x17, nothing after them.
STRIDE_8: Changes = {
    "Mixed_6a": _reduction_a(256, 256, 384, 384, stride=1),
    "PreAuxLogits": Residual("PreAuxLogits", _dilated(V2_BLOCK_17, 2), scale=0.10, count=20),
    "Mixed_7a": None,
    "Block8": None,
    "Conv2d_7b_1x1": None,
}

# Figure 15: Inception-v4's stem, 5, 10 and 5 blocks, and nothing after them. The paper scales residuals by
# 0.1 to 0.3 where training needs it; the factors here are TF-slim's.
V2_PAPER_TABLE: tuple[Row, ...] = (
    *inception_v4.STEM,
    Residual("Block35", V2_BLOCK_35, scale=0.17, count=5),
    _reduction_a(256, 256, 384, 384),
    Residual("PreAuxLogits", V2_BLOCK_17, scale=0.10, count=10),
    _reduction_b(288, 288, 320),
    Residual("Block8", V2_BLOCK_8, scale=0.20, count=5),
)

STYLE = Style(batch_norm=True)
_ALIASES = {"repeat": "Block35", "repeat_1": "PreAuxLogits", "block17": "PreAuxLogits", "repeat_2": "Block8"}
_SHORT = {"conv2d_7b": "Conv2d_7b_1x1", "conv_7b_ac": "Conv2d_7b_1x1"}
_STEM_ALIASES = {row.name.lower().rpartition("_")[0]: row.name for row in inception_v3.STEM}


def _second(title: str, rows: tuple[Row, ...], small_stem: Changes, aliases: dict[str, str]) -> Architecture:
    return Architecture(
        title,
        rows=rows,
        style=STYLE,
        small_stem=small_stem,
        aux_heads=(("aux1", "PreAuxLogits"),),
        aux_form="convolutional",
        image_sizes=(299, 32),
        min_sizes={"floor": (75, 15), "same": (1, 1)},
        aliases={**with_snake_case(rows), **_ALIASES, **aliases},
    )


INCEPTION_RESNET_V1 = Architecture(
    "Inception-ResNet-v1: residual Inception blocks at Inception-v3's cost, as facenet builds it.",
    rows=V1_TABLE,
    style=STYLE,
    small_stem=inception_v3.SMALL_STEM,
    image_sizes=(299, 32),
    min_sizes={"floor": (75, 15), "same": (1, 1)},
    aliases={**with_snake_case(V1_TABLE), "repeat": "Block35", "repeat_1": "Block17"},
)
INCEPTION_RESNET_V2 = replace(
    _second(
        "Inception-ResNet-v2 as TF-slim, timm and Keras have it: 10, 20 and 10 residual blocks.",
        V2_TABLE,
        inception_v3.SMALL_STEM,
        {**_STEM_ALIASES, **_SHORT},
    ),
    variants={"output_stride": {16: {}, 8: STRIDE_8}},
)
INCEPTION_RESNET_V2_PAPER = _second(
    "Inception-ResNet-v2 as the paper draws it: Inception-v4's stem, 5, 10 and 5 residual blocks.",
    V2_PAPER_TABLE,
    inception_v4.SMALL_STEM,
    {},
)

ARCHITECTURES = {
    "inception_resnet_v1": INCEPTION_RESNET_V1,
    "inception_resnet_v2": INCEPTION_RESNET_V2,
    "inception_resnet_v2_paper": INCEPTION_RESNET_V2_PAPER,
}
