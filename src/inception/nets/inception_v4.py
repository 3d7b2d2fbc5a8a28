"""Inception-v4: "Inception-v4, Inception-ResNet and the Impact of …" (Szegedy et al. 2017)."""

from functools import partial

from inception.nets.architecture import Architecture, Changes
from inception.nets.blocks import Fork, Mixed
from inception.nets.endpoints import with_snake_case
from inception.nets.rows import Conv, Pool, Row, Style

# Inside modules parts are named by their place: `branch1_0` is the first of the second branch.
conv, pool = partial(Conv, ""), partial(Pool, "")
AVERAGE = pool(3, kind="average")

# Figure 3.
STEM: tuple[Row, ...] = (
    Conv("Conv2d_1a_3x3", 32, 3, stride=2, pad=0),
    Conv("Conv2d_2a_3x3", 32, 3, pad=0),
    Conv("Conv2d_2b_3x3", 64, 3),
    Mixed("Mixed_3a", ((pool(3, stride=2),), (conv(96, 3, stride=2, pad=0),)), stride=2),
    Mixed(
        "Mixed_4a",
        (
            (conv(64, 1), conv(96, 3, pad=0)),
            (conv(64, 1), conv(64, (1, 7)), conv(64, (7, 1)), conv(96, 3, pad=0)),
        ),
    ),
    Mixed("Mixed_5a", ((conv(192, 3, stride=2, pad=0),), (pool(3, stride=2),)), stride=2),
)

# For 32x32 images the first two halvings are left out, and nothing shrinks at the borders.
SMALL_STEM: Changes = {
    "Conv2d_1a_3x3": Conv("Conv2d_1a_3x3", 32, 3),
    "Conv2d_2a_3x3": Conv("Conv2d_2a_3x3", 32, 3),
    "Mixed_3a": Mixed("Mixed_3a", ((pool(3),), (conv(96, 3),))),
    "Mixed_4a": Mixed(
        "Mixed_4a",
        ((conv(64, 1), conv(96, 3)), (conv(64, 1), conv(64, (1, 7)), conv(64, (7, 1)), conv(96, 3))),
    ),
}

# Figure 4.
INCEPTION_A = (
    (conv(96, 1),),
    (conv(64, 1), conv(96, 3)),
    (conv(64, 1), conv(96, 3), conv(96, 3)),
    (AVERAGE, conv(96, 1)),
)
# Figure 7 with k, l, m, n = 192, 224, 256, 384.
REDUCTION_A = (
    (conv(384, 3, stride=2, pad=0),),
    (conv(192, 1), conv(224, 3), conv(256, 3, stride=2, pad=0)),
    (pool(3, stride=2),),
)
# Figure 5.
INCEPTION_B = (
    (conv(384, 1),),
    (conv(192, 1), conv(224, (1, 7)), conv(256, (7, 1))),
    (conv(192, 1), conv(192, (7, 1)), conv(224, (1, 7)), conv(224, (7, 1)), conv(256, (1, 7))),
    (AVERAGE, conv(128, 1)),
)
# Figure 8.
REDUCTION_B = (
    (conv(192, 1), conv(192, 3, stride=2, pad=0)),
    (conv(256, 1), conv(256, (1, 7)), conv(320, (7, 1)), conv(320, 3, stride=2, pad=0)),
    (pool(3, stride=2),),
)
# Figure 6.
INCEPTION_C = (
    (conv(256, 1),),
    (conv(384, 1), Fork((conv(256, (1, 3)), conv(256, (3, 1))))),
    (conv(384, 1), conv(448, (3, 1)), conv(512, (1, 3)), Fork((conv(256, (1, 3)), conv(256, (3, 1))))),
    (AVERAGE, conv(256, 1)),
)

# Figure 9.
TABLE: tuple[Row, ...] = (
    *STEM,
    *(Mixed(f"Mixed_5{letter}", INCEPTION_A) for letter in "bcde"),
    Mixed("Mixed_6a", REDUCTION_A, stride=2),
    *(Mixed(f"Mixed_6{letter}", INCEPTION_B) for letter in "bcdefgh"),
    Mixed("Mixed_7a", REDUCTION_B, stride=2),
    *(Mixed(f"Mixed_7{letter}", INCEPTION_C) for letter in "bcd"),
)

INCEPTION_V4 = Architecture(
    "Inception-v4: uniform blocks on 35x35, 17x17 and 8x8 maps, one auxiliary head.",
    rows=TABLE,
    style=Style(batch_norm=True),
    small_stem=SMALL_STEM,
    aux_heads=(("aux1", "Mixed_6h"),),
    aux_form="convolutional",
    image_sizes=(299, 32),
    min_sizes={"floor": (75, 15), "same": (1, 1)},
    aliases={
        **with_snake_case(TABLE),
        **{f"features.{index}": row.name for index, row in enumerate(TABLE)},
    },
    levels=("Conv2d_2b_3x3", "Mixed_3a", "Mixed_5e", "Mixed_6h", "Mixed_7d"),
)

ARCHITECTURES = {"inception_v4": INCEPTION_V4}
