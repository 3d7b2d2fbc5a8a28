"""GoogLeNet: "Going Deeper with Convolutions" (Szegedy et al. 2015), its Table 1, and its known variants."""

from dataclasses import replace
from typing import Literal

from inception.nets.endpoints import GOOGLENET_ALIASES
from inception.nets.heads import AuxPool
from inception.nets.network import GlobalPool, Network, Plan
from inception.nets.rows import Conv, Inception, Lrn, LrnConstants, Pool, Row, Style

# Table 1, in the paper's order. Columns of Inception rows:
#                   #1x1  #3x3 reduce  #3x3  #5x5 reduce  #5x5  pool proj
TABLE_1: tuple[Row, ...] = (
    Conv("conv1", 64, kernel=7, stride=2),
    Pool("maxpool1", kernel=3, stride=2),
    Lrn("norm1"),
    Conv("conv2", 64, kernel=1),
    Conv("conv3", 192, kernel=3),
    Lrn("norm2"),
    Pool("maxpool2", kernel=3, stride=2),
    Inception("inception3a", 64, 96, 128, 16, 32, 32),
    Inception("inception3b", 128, 128, 192, 32, 96, 64),
    Pool("maxpool3", kernel=3, stride=2),
    Inception("inception4a", 192, 96, 208, 16, 48, 64),
    Inception("inception4b", 160, 112, 224, 24, 64, 64),
    Inception("inception4c", 128, 128, 256, 24, 64, 64),
    Inception("inception4d", 112, 144, 288, 32, 64, 64),
    Inception("inception4e", 256, 160, 320, 32, 128, 128),
    Pool("maxpool4", kernel=3, stride=2),
    Inception("inception5a", 256, 160, 320, 32, 128, 128),
    Inception("inception5b", 384, 192, 384, 48, 128, 128),
)

# The network Google released in 2015 differs from its own table in two rows (read off its weights).
RELEASED_ROWS: dict[str, Row] = {
    "inception4a": Inception("inception4a", 192, 96, 204, 16, 48, 64),
    "inception5a": Inception("inception5a", 256, 160, 320, 48, 128, 128),
}

# TF-slim's and torchvision's last pool between modules.
SLIM_ROWS: dict[str, Row] = {"maxpool4": Pool("maxpool4", kernel=2, stride=2)}

# For 32x32 images the two halvings before the first module are left out.
SMALL_STEM_ROWS: dict[str, Row | None] = {"conv1": Conv("conv1", 64, kernel=3), "maxpool1": None}

# The paper's text puts the heads on 4a and 4d; 4d is the only early output of 528 channels.
AUX_HEADS = (("aux1", "inception4a"), ("aux2", "inception4d"))


def _table(overrides: dict[str, Row], style: Style, stem: Literal["large", "small"]) -> tuple[Row, ...]:
    if stem not in ("large", "small"):
        raise ValueError(f"stem must be 'large' (224x224) or 'small' (32x32), not {stem!r}")
    changes: dict[str, Row | None] = {**overrides, **(SMALL_STEM_ROWS if stem == "small" else {})}
    rows = [changes.get(row.name, row) for row in TABLE_1]
    return tuple(row for row in rows if row is not None and not (style.batch_norm and isinstance(row, Lrn)))


def _build(
    style: Style,
    overrides: dict[str, Row],
    min_sizes: tuple[int, int] = (31, 8),
    aux_pool: AuxPool = "5/3",
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: GlobalPool = "avg",
    aux_logits: bool = True,
    dropout: float = 0.4,
    aux_dropout: float = 0.7,
    width: float = 1.0,
    stem: Literal["large", "small"] = "large",
    module: Literal["reduced", "naive"] = "reduced",
    head: Literal["average", "fully_connected"] = "average",
    kernel5: Literal["5x5", "3x3", "3x3+3x3"] | None = None,
    image_size: int | None = None,
) -> Network:
    if width <= 0:
        raise ValueError(f"width must be positive, not {width}")
    style = replace(style, width=width, module=module, kernel5=kernel5 or style.kernel5)
    small = stem == "small"
    plan = Plan(
        rows=_table(overrides, style, stem),
        style=style,
        aux_heads=AUX_HEADS if aux_logits else (),
        aux_pool=aux_pool,
        dropout=dropout,
        aux_dropout=aux_dropout,
        head=head,
        image_size=image_size or (32 if small else 224),
        min_size=min_sizes[small],
        aliases=GOOGLENET_ALIASES,
    )
    return Network(plan, num_classes, in_chans, global_pool)


def googlenet(**arguments: object) -> Network:
    """The network of the paper's Table 1: LRN, biased convolutions, true 5x5, ceil-mode pools.

    6,998,552 parameters (13,378,280 with both auxiliary heads), 1,582,671,872 multiply-adds at 224x224.
    LRN constants are Caffe's. Keyword arguments: see `inception.nets.registry.create_model`.
    """
    return _build(Style(), {}, **arguments)  # type: ignore[arg-type]


def googlenet_5h(**arguments: object) -> Network:
    """The network Google released with DeepDream in 2015 (`inception5h`), trained on ImageNet.

    Differs from Table 1 in 4a's 3x3 (204) and 5a's 5x5 reduction (48), in its LRN constants, in TensorFlow's
    SAME padding and in its 1,008 outputs, of which 1 to 1000 are classes.
    """
    style = Style(padding="same", lrn=LrnConstants(size=11, alpha=0.0011, beta=0.5, k=2.0))
    return _build(style, RELEASED_ROWS, (1, 1), **{"num_classes": 1008, "aux_logits": False, **arguments})  # type: ignore[arg-type]


def googlenet_bn(**arguments: object) -> Network:
    """Table 1 with batch normalisation in place of LRN and biases: the one to train from scratch.

    Auxiliary heads are off unless asked for: normalised gradients reach the early layers without them.
    """
    return _build(Style(batch_norm=True), {}, **{"aux_logits": False, "dropout": 0.2, **arguments})  # type: ignore[arg-type]


def googlenet_tv(**arguments: object) -> Network:
    """torchvision's `googlenet`, same `state_dict`: batch norm, 3x3 for the paper's 5x5, 2x2 fourth pool."""
    style = Style(batch_norm=True, kernel5="3x3", nested_names=True)
    return _build(style, SLIM_ROWS, (15, 4), "adaptive", **{"dropout": 0.2, **arguments})  # type: ignore[arg-type]
