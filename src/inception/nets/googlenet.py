"""GoogLeNet: "Going Deeper with Convolutions" (Szegedy et al. 2015), its Table 1, and its known variants."""

from dataclasses import replace

from inception.nets.architecture import GOOGLENET_OPTIONS, Architecture, Changes, changed
from inception.nets.blocks import Inception
from inception.nets.endpoints import GOOGLENET_ALIASES
from inception.nets.layers import Padding
from inception.nets.rows import Conv, Lrn, LrnConstants, Pool, Row, Style

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
RELEASED_ROWS: Changes = {
    "inception4a": Inception("inception4a", 192, 96, 204, 16, 48, 64),
    "inception5a": Inception("inception5a", 256, 160, 320, 48, 128, 128),
}

# TF-slim's and torchvision's last pool between modules.
SLIM_ROWS: Changes = {"maxpool4": Pool("maxpool4", kernel=2, stride=2)}

# For 32x32 images the two halvings before the first module are left out.
SMALL_STEM_ROWS: Changes = {"conv1": Conv("conv1", 64, kernel=3), "maxpool1": None}

# The paper's text puts the heads on 4a and 4d; 4d is the only early output of 528 channels.
AUX_HEADS = (("aux1", "inception4a"), ("aux2", "inception4d"))

# At padding `same` no image is too small.
_MIN_SIZES: dict[Padding, tuple[int, int]] = {"ceil": (31, 8), "floor": (61, 15), "same": (1, 1)}

GOOGLENET = Architecture(
    "GoogLeNet, the paper's Table 1: LRN, biased convolutions, true 5x5, auxiliary heads on 4a and 4d.",
    rows=TABLE_1,
    small_stem=SMALL_STEM_ROWS,
    aux_heads=AUX_HEADS,
    dropout=0.4,
    min_sizes=_MIN_SIZES,
    aliases=GOOGLENET_ALIASES,
    ablations=GOOGLENET_OPTIONS,
)

# The network Google released with DeepDream in 2015 (`inception5h`), trained on ImageNet: besides two rows it
# differs in its LRN constants, in TensorFlow's SAME padding and in its 1,008 outputs (1 to 1000 are classes).
GOOGLENET_5H = replace(
    GOOGLENET,
    title="The network Google released in 2015 (inception5h): 1,008 outputs, SAME padding.",
    rows=changed(TABLE_1, RELEASED_ROWS),
    style=Style(lrn=LrnConstants(size=11, alpha=0.0011, beta=0.5, k=2.0)),
    aux_default=False,
    num_classes=1008,
    min_sizes=dict(reversed(_MIN_SIZES.items())),
)

# Auxiliary heads are off unless asked for: normalised gradients reach the early layers without them.
GOOGLENET_BN = replace(
    GOOGLENET,
    title="Table 1 with batch normalisation in place of LRN and biases: the one to train from scratch.",
    style=Style(batch_norm=True),
    aux_default=False,
    dropout=0.2,
)

GOOGLENET_TV = replace(
    GOOGLENET,
    title="torchvision's googlenet, same state_dict: batch norm, 3x3 for the paper's 5x5, 2x2 fourth pool.",
    rows=changed(TABLE_1, SLIM_ROWS),
    style=Style(batch_norm=True, kernel5="3x3", nested_names=True),
    aux_pool="adaptive",
    dropout=0.2,
    min_sizes={"ceil": (15, 4), "floor": (45, 11), "same": (1, 1)},
)

ARCHITECTURES = {
    "googlenet": GOOGLENET,
    "googlenet_5h": GOOGLENET_5H,
    "googlenet_bn": GOOGLENET_BN,
    "googlenet_tv": GOOGLENET_TV,
}
