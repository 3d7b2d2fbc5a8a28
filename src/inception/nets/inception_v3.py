"""Inception-v3: "Rethinking the Inception Architecture for Computer Vision" (Szegedy et al. 2016).

The table is TF-slim's, with its stage names; branch names are torchvision's, whose `state_dict` fits but for
its auxiliary head's name.

deviation: TF-slim's and torchvision's network keeps a 5x5 convolution in Mixed_5b to 5d, where the paper's
text replaces it by two 3x3; published weights have it so.
"""

from inception.nets.architecture import Architecture, Changes
from inception.nets.blocks import Fork, Mixed
from inception.nets.endpoints import with_snake_case
from inception.nets.rows import Conv, Pool, Row, Style


def _factorized_35(name: str, pool: int) -> Mixed:
    """Figure 5: 5x5 and double 3x3 beside 1x1 and pooling, on 35x35 maps."""
    return Mixed(
        name,
        (
            (Conv("branch1x1", 64, 1),),
            (Conv("branch5x5_1", 48, 1), Conv("branch5x5_2", 64, 5)),
            (Conv("branch3x3dbl_1", 64, 1), Conv("branch3x3dbl_2", 96, 3), Conv("branch3x3dbl_3", 96, 3)),
            (Pool("pool", 3, kind="average"), Conv("branch_pool", pool, 1)),
        ),
    )


def _factorized_17(name: str, inner: int) -> Mixed:
    """Figure 6: n x n as 1 x n and n x 1 with n = 7, on 17x17 maps."""
    return Mixed(
        name,
        (
            (Conv("branch1x1", 192, 1),),
            (
                Conv("branch7x7_1", inner, 1),
                Conv("branch7x7_2", inner, (1, 7)),
                Conv("branch7x7_3", 192, (7, 1)),
            ),
            (
                Conv("branch7x7dbl_1", inner, 1),
                Conv("branch7x7dbl_2", inner, (7, 1)),
                Conv("branch7x7dbl_3", inner, (1, 7)),
                Conv("branch7x7dbl_4", inner, (7, 1)),
                Conv("branch7x7dbl_5", 192, (1, 7)),
            ),
            (Pool("pool", 3, kind="average"), Conv("branch_pool", 192, 1)),
        ),
    )


def _expanded_8(name: str) -> Mixed:
    """Figure 7: branches that end in 1x3 and 3x1 side by side, on 8x8 maps."""
    return Mixed(
        name,
        (
            (Conv("branch1x1", 320, 1),),
            (
                Conv("branch3x3_1", 384, 1),
                Fork((Conv("branch3x3_2a", 384, (1, 3)), Conv("branch3x3_2b", 384, (3, 1)))),
            ),
            (
                Conv("branch3x3dbl_1", 448, 1),
                Conv("branch3x3dbl_2", 384, 3),
                Fork((Conv("branch3x3dbl_3a", 384, (1, 3)), Conv("branch3x3dbl_3b", 384, (3, 1)))),
            ),
            (Pool("pool", 3, kind="average"), Conv("branch_pool", 192, 1)),
        ),
    )


STEM: tuple[Row, ...] = (
    Conv("Conv2d_1a_3x3", 32, 3, stride=2, pad=0),
    Conv("Conv2d_2a_3x3", 32, 3, pad=0),
    Conv("Conv2d_2b_3x3", 64, 3),
    Pool("MaxPool_3a_3x3", 3, stride=2),
    Conv("Conv2d_3b_1x1", 80, 1),
    Conv("Conv2d_4a_3x3", 192, 3, pad=0),
    Pool("MaxPool_5a_3x3", 3, stride=2),
)

# For 32x32 images the first two halvings are left out, and nothing shrinks at the borders.
SMALL_STEM: Changes = {
    "Conv2d_1a_3x3": Conv("Conv2d_1a_3x3", 32, 3),
    "Conv2d_2a_3x3": Conv("Conv2d_2a_3x3", 32, 3),
    "MaxPool_3a_3x3": None,
    "Conv2d_4a_3x3": Conv("Conv2d_4a_3x3", 192, 3),
}

# Reductions, Figure 10: convolutions of stride 2 beside a pool.
TABLE: tuple[Row, ...] = (
    *STEM,
    _factorized_35("Mixed_5b", 32),
    _factorized_35("Mixed_5c", 64),
    _factorized_35("Mixed_5d", 64),
    Mixed(
        "Mixed_6a",
        (
            (Conv("branch3x3", 384, 3, stride=2, pad=0),),
            (
                Conv("branch3x3dbl_1", 64, 1),
                Conv("branch3x3dbl_2", 96, 3),
                Conv("branch3x3dbl_3", 96, 3, stride=2, pad=0),
            ),
            (Pool("pool", 3, stride=2),),
        ),
        stride=2,
    ),
    _factorized_17("Mixed_6b", 128),
    _factorized_17("Mixed_6c", 160),
    _factorized_17("Mixed_6d", 160),
    _factorized_17("Mixed_6e", 192),
    Mixed(
        "Mixed_7a",
        (
            (Conv("branch3x3_1", 192, 1), Conv("branch3x3_2", 320, 3, stride=2, pad=0)),
            (
                Conv("branch7x7x3_1", 192, 1),
                Conv("branch7x7x3_2", 192, (1, 7)),
                Conv("branch7x7x3_3", 192, (7, 1)),
                Conv("branch7x7x3_4", 192, 3, stride=2, pad=0),
            ),
            (Pool("pool", 3, stride=2),),
        ),
        stride=2,
    ),
    _expanded_8("Mixed_7b"),
    _expanded_8("Mixed_7c"),
)

# Keras numbers the modules from `mixed0`.
_KERAS = {
    f"mixed{index}": row.name for index, row in enumerate(row for row in TABLE if isinstance(row, Mixed))
}

# torchvision and timm count the zeros of the border in average pools, TF-slim and Keras do not.
INCEPTION_V3 = Architecture(
    "Inception-v3: factorised 7x7 and 3x3, batch-normalised auxiliary head; torchvision's parameter names.",
    rows=TABLE,
    style=Style(batch_norm=True, count_include_pad=True),
    small_stem=SMALL_STEM,
    aux_heads=(("aux1", "Mixed_6e"),),
    aux_form="convolutional",
    image_sizes=(299, 32),
    min_sizes={"floor": (75, 15), "same": (1, 1)},
    aliases={
        **with_snake_case(TABLE),
        **_KERAS,
        "maxpool1": "MaxPool_3a_3x3",
        "maxpool2": "MaxPool_5a_3x3",
    },
)

ARCHITECTURES = {"inception_v3": INCEPTION_V3}
