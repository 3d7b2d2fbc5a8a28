"""This project's own network for small images: Inception modules of two branches, made for the recipe `fast`.

The skeleton is that of the CIFAR-10 speed runs (Page 2019; Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a
single GPU"): a first convolution of 2x2 patches that `whiten` can solve instead of learning it, and two
layers at each of three resolutions. In every pair the second layer is an Inception module, a 1x1 beside a 3x3
convolution as in Zhang et al. 2017 ("Understanding deep learning requires rethinking generalization",
appendix A), and the head is GoogLeNet's global average (Szegedy et al. 2015, section 5).
"""

from inception.nets.architecture import Architecture
from inception.nets.blocks import Mixed
from inception.nets.rows import Conv, Pool, Row, Style


def _beside(name: str, n1x1: int, n3x3: int) -> Mixed:
    return Mixed(name, ((Conv("b1x1", n1x1, 1),), (Conv("b3x3", n3x3, 3),)))


ROWS: tuple[Row, ...] = (
    Conv("conv1", 24, kernel=2, pad=0),
    Conv("conv2", 64, kernel=3),
    Pool("maxpool1", kernel=2, stride=2),
    _beside("mixed1", 16, 48),
    Conv("conv3", 256, kernel=3),
    Pool("maxpool2", kernel=2, stride=2),
    _beside("mixed2", 64, 192),
    Conv("conv4", 256, kernel=3),
    Pool("maxpool3", kernel=2, stride=2),
    _beside("mixed3", 64, 192),
)

INCEPTION_SMALL = Architecture(
    "Two-branch Inception modules for 32x32 images: what the recipe fast trains; 10 outputs.",
    rows=ROWS,
    style=Style(batch_norm=True),
    dropout=0.0,
    num_classes=10,
    image_sizes=(32, 32),
    min_sizes={"floor": (9, 9)},
)

ARCHITECTURES = {"inception_small": INCEPTION_SMALL}
