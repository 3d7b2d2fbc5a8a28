"""Small networks with weights that tell pictures apart."""

import pytest
import torch
from explain_support import make_network
from torch import Tensor, nn

from inception.data.preprocess import Preprocess
from inception.nets.network import Network


@pytest.fixture
def network() -> Network:
    """googlenet_bn for 32x32 images, in training mode: nothing here may depend on the mode it is given in."""
    return make_network()


@pytest.fixture
def aux_network() -> Network:
    """The paper's network with its two auxiliary heads."""
    return make_network("googlenet", aux_logits=True)


@pytest.fixture
def images() -> Tensor:
    """Three smooth normalised images."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(3, 3, 8, 8, generator=generator)
    return nn.functional.interpolate(coarse, (32, 32), mode="bilinear", align_corners=False)


@pytest.fixture
def preprocess() -> Preprocess:
    return Preprocess(32, 32)
