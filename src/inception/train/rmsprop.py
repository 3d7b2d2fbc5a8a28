"""RMSProp as TensorFlow has it: the form in which Inception-v3 was trained.

Sources: Tieleman and Hinton 2012; Szegedy et al. 2016, section 8 (decay 0.9, epsilon 1.0). TensorFlow's form
differs from PyTorch's where epsilon is large: epsilon stands under the root, the mean square starts at 1, and
the momentum gathers steps that have the learning rate in them.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

DECAY, EPSILON = 0.9, 1.0


class RMSProp(torch.optim.Optimizer):
    """s <- 0.9 s + 0.1 g^2; m <- momentum m + lr g / sqrt(s + 1); w <- w - m, with s = 1 and m = 0 at first.

    Args:
        groups: parameter groups with `params` and `weight_decay` (added to the gradient).
        lr: learning rate.
        momentum: share of the last step in the next one.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            squares, momenta = zip(*map(self._memory, parameters), strict=True)
            gradients = [p.grad for p in parameters]
            if group["weight_decay"]:
                gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
            torch._foreach_mul_(squares, DECAY)
            torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - DECAY)
            scale = torch._foreach_add(squares, EPSILON)
            torch._foreach_sqrt_(scale)
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_addcdiv_(momenta, gradients, scale, group["lr"])
            torch._foreach_sub_(parameters, momenta)

    def _memory(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        state = self.state[parameter]
        if not state:
            state["square"] = torch.ones_like(parameter)
            state["momentum"] = torch.zeros_like(parameter)
        return state["square"], state["momentum"]
