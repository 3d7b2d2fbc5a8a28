"""The optimiser of a run, and the running average of its weights."""

import torch
from torch import Tensor, nn

from inception.train.config import TrainConfig


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD (Nesterov in the modern recipe) or AdamW over the trainable parameters.

    Weight decay is left off biases and normalisation parameters (every parameter of one dimension).
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    nesterov = config.recipe == "modern" and config.momentum > 0.0
    return torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov, fused=True
    )


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
