"""The networks GoogLeNet is compared with, by their cost."""

import torch


def parameters_of(name: str) -> int:
    """Parameters of torchvision's network `name`, built without storage."""
    from torchvision import models

    with torch.device("meta"):
        network = models.get_model(name)
    return sum(parameter.numel() for parameter in network.parameters())
