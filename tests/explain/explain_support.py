"""What the tests of this room share: small networks, and the count of their hooks."""

import torch
from torch import nn

from inception.nets.network import Network
from inception.nets.registry import build_network


def hooks(network: nn.Module) -> int:
    """How many forward hooks a network has."""
    return sum(len(module._forward_hooks) for module in network.modules())


def make_network(name: str = "googlenet_bn", **arguments: object) -> Network:
    torch.manual_seed(3)
    arguments = {"num_classes": 5, "width": 0.125, "stem": "small", **arguments}
    network = build_network(name, **arguments)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
    nn.init.normal_(network.fc.weight, std=0.5)
    return network
