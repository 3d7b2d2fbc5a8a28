"""Which layers learn, and how fast: frozen stages, and rates that fall towards the input."""

from typing import Any

import torch
from torch import nn

from inception.nets.endpoints import resolve_endpoint
from inception.nets.network import Network

EVERYTHING = "all"


def last_third(network: Network) -> str:
    """The stage that begins the last third of the stages with parameters."""
    stages = [name for name in network.endpoints if list(getattr(network, name).parameters())]
    return stages[len(stages) - max(len(stages) // 3, 1)]


def freeze_below(network: Network, first_trained: str) -> None:
    """Stop gradients in the stages before `first_trained` (an endpoint name; '' and 'all' stop none)."""
    if first_trained in ("", EVERYTHING):
        return
    stage = resolve_endpoint(first_trained, network.endpoints, network.aliases)
    for name in network.endpoints[: network.endpoints.index(stage)]:
        getattr(network, name).requires_grad_(False)


def scale_rates(optimizer: torch.optim.Optimizer, network: Network, decay: float) -> None:
    """Give every parameter group the factor of its stage's learning rate, as its entry `rate_scale`.

    The classifiers keep the full rate; each stage with parameters, from the output to the input, takes
    `decay` times the rate of the one above it (Clark et al. 2020). 1.0 changes nothing.
    """
    if decay == 1.0:
        return
    stages = [name for name in network.endpoints if list(getattr(network, name).parameters())]
    depth = {
        parameter: len(stages) - position
        for position, name in enumerate(stages)
        for parameter in getattr(network, name).parameters()
    }
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        by_depth: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_depth.setdefault(depth.get(parameter, 0), []).append(parameter)
        groups += [
            {**group, "params": parameters, "rate_scale": decay**level}
            for level, parameters in by_depth.items()
        ]
    optimizer.param_groups[:] = groups


def set_training_mode(network: Network, keep_statistics: bool) -> None:
    """Training mode, in which batch norms of frozen stages (or, if so asked, all) keep their statistics."""
    network.train()
    for stage in network.children():
        frozen = not any(parameter.requires_grad for parameter in stage.parameters())
        for layer in stage.modules():
            if isinstance(layer, nn.BatchNorm2d) and (frozen or keep_statistics):
                layer.eval()
