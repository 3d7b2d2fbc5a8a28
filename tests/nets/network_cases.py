"""Small networks and images for the tests over all models."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from inception.nets.architecture import build
from inception.nets.blocks import Residual
from inception.nets.registry import ARCHITECTURES, build_network, list_models

MODELS = list_models()
CLASSES = 10
# The networks are the same at any width; narrow ones are quick to test.
NARROW = {"inception": 0.25, "alexnet": 0.125, "vgg": 0.125}
every_model = pytest.mark.parametrize("name", MODELS)


def narrow(name: str) -> dict[str, float]:
    return {"width": next((width for prefix, width in NARROW.items() if name.startswith(prefix)), 1.0)}


def make(name: str, **arguments):
    return build_network(name, **{"num_classes": CLASSES, **narrow(name), **arguments})


def make_shallow(name: str, **arguments):
    """With two residual blocks where there are five to twenty of the same."""
    rows = [replace(row, count=2) if isinstance(row, Residual) else row for row in ARCHITECTURES[name].rows]
    shallow = replace(ARCHITECTURES[name], rows=tuple(rows))
    return build(shallow, **{"num_classes": CLASSES, **narrow(name), **arguments})


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
