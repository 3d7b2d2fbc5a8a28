"""The optimiser of a run, and the running average of its weights."""

from typing import Any

import torch
from torch import Tensor, nn

from inception.errors import UsageError
from inception.train.config import TrainConfig
from inception.train.muon import Muon
from inception.train.rmsprop import RMSProp

MUON_MOMENTUM = 0.6
"""As in the CIFAR-10 runs that Muon was made for; short runs want a short memory."""


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD, AdamW, RMSProp or Muon over the trainable parameters.

    Weight decay is left off biases and normalisation parameters (every parameter of one dimension).
    Raises UsageError for Muon on a network without batch normalisation.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "muon":
        return _make_muon(network, groups, config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    if config.optimizer == "rmsprop":
        return RMSProp(groups, config.learning_rate, config.momentum)
    nesterov = config.nesterov != "no" and config.momentum > 0.0
    return torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov, fused=True
    )


def _make_muon(network: nn.Module, groups: list[dict[str, Any]], config: TrainConfig) -> Muon:
    if not is_batch_normalized(network):
        raise UsageError(
            "--optimizer muon is for batch-normalised networks such as googlenet_bn; take sgd or adamw"
        )
    convolutions = [p for group in groups for p in group["params"] if p.dim() == 4]
    rest = [{**group, "params": [p for p in group["params"] if p.dim() != 4]} for group in groups]
    first = {"params": convolutions, "weight_decay": 0.0, "orthogonalize": True, "momentum": MUON_MOMENTUM}
    others = [
        {**group, "orthogonalize": False, "momentum": config.momentum} for group in rest if group["params"]
    ]
    return Muon([first, *others], config.learning_rate)


def is_batch_normalized(network: nn.Module) -> bool:
    """Whether every convolution of the network is followed by a batch norm (and so has no bias)."""
    return all(layer.bias is None for layer in network.modules() if isinstance(layer, nn.Conv2d))


class AveragedWeights:
    """Exponential average of parameters and batch-norm statistics (the paper's Polyak averaging).

    The decay warms up as (1 + step) / (10 + step), so that short runs are not dominated by the start.

    Attributes:
        values: the averages, by the state_dict's names; floating-point entries only.
        decay: its final value; with 0 the averages are the current weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.live = {n: v for n, v in network.state_dict().items() if v.is_floating_point()}
        self.values = {name: value.clone() for name, value in self.live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's current weights."""
        self.steps += 1
        decay = min(self.decay, (1.0 + self.steps) / (10.0 + self.steps)) if self.decay else 0.0
        averages, current = list(self.values.values()), list(self.live.values())
        torch._foreach_lerp_(averages, current, 1.0 - decay)

    def state_dict(self, network: nn.Module) -> dict[str, Tensor]:
        """The network's state with the averages in place of its floating-point entries."""
        return {**network.state_dict(), **self.values}
