"""The networks GoogLeNet is compared with, by their cost."""

import torch

from inception.nets.registry import build_network


def parameters_of(name: str) -> int:
    """Parameters of the network `name`, built without storage."""
    with torch.device("meta"):
        network = build_network(name)
    return sum(parameter.numel() for parameter in network.parameters())
