"""Small networks and images for the tests over all models."""

import pytest
import torch
from torch import nn

from inception.nets.registry import build_network, list_models

MODELS = list_models()
CLASSES = 10
# The networks are the same at any width; narrow ones are quick to test.
NARROW = {"inception": 0.25, "alexnet": 0.125, "vgg": 0.125}
every_model = pytest.mark.parametrize("name", MODELS)


def narrow(name: str) -> dict[str, float]:
    return {"width": next((width for prefix, width in NARROW.items() if name.startswith(prefix)), 1.0)}


def make(name: str, **arguments):
    return build_network(name, **{"num_classes": CLASSES, **narrow(name), **arguments})


def on_meta(name: str, **arguments):
    """The whole network without its weights: for counting and for shapes."""
    with torch.device("meta"):
        return build_network(name, **arguments)


def images(network, batch: int = 2, side: int = 64):
    side = max(side, network.min_size)
    return torch.randn(batch, network.in_chans, side, side)


def without_dropout(network):
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network
