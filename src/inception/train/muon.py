"""Muon: momentum whose step is orthogonalised, for the weights of convolutions.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the coefficients of the
Newton-Schulz iteration and the weights kept at a fixed norm are those of its CIFAR-10 speed runs.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalized(matrix: Tensor) -> Tensor:
    """Roughly U V^T of `matrix` = U S V^T (rows x columns): its singular values brought near 1.

    A quintic Newton-Schulz iteration in bfloat16, which needs no more than that.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.to(torch.bfloat16)
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Muon for convolution weights O x I x kh x kw, seen as matrices O x (I kh kw), and SGD for the rest.

    Each convolution weight is held at the norm sqrt(O): behind a batch norm its scale has no other use, and a
    fixed one makes the learning rate mean the same in every layer.

    Args:
        groups: parameter groups with `params`, `orthogonalize` (Muon, or SGD with Nesterov momentum),
            `momentum` and `weight_decay` (of SGD).
        lr: of both; for Muon the length of a step relative to a weight of norm sqrt(O), about 0.1.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        if not group["orthogonalize"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        average = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        step = gradient.add(average, alpha=group["momentum"])
        if group["orthogonalize"]:
            step = orthogonalized(step.flatten(1)).view(parameter.shape)
            parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
        parameter.add_(step, alpha=-group["lr"])
