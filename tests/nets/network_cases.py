"""Small networks and images for the tests over all models."""

import pytest
import torch
from torch import nn

from inception.nets.registry import build_network, list_models

MODELS = list_models()
CLASSES = 10
every_model = pytest.mark.parametrize("name", MODELS)


def make(name: str, **arguments):
    return build_network(name, **{"num_classes": CLASSES, **arguments})


def images(network, batch: int = 2, side: int = 64):
    side = max(side, network.min_size)
    return torch.randn(batch, network.in_chans, side, side)


def without_dropout(network):
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network
