"""A ReLU whose gradient does not die: for the first steps, when a random picture excites nothing.

Source: Lucid's `redirected_relu_grad`. Where a whole map of an image lets no gradient through, the gradient
is passed on as if the ReLU were the identity, but never so that it would push a negative input lower still.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _RedirectedRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,), gradient = ctx.saved_tensors, gradients[0]
        ordinary = gradient * (x > 0)
        alive = ordinary.flatten(1).abs().amax(dim=1) > 0
        # We ascend: a negative gradient at a negative input would push it lower.
        redirected = gradient * ~((x < 0) & (gradient < 0))
        return torch.where(alive.view(-1, *(1,) * (x.dim() - 1)), ordinary, redirected)


class RedirectedRelu(TorchFunctionMode):
    """Inside `with RedirectedRelu():` every `F.relu` is the redirected one; outside nothing has changed.

    Gradients inside are expected to be those of something to be made larger.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch for every function."""
        if func is F.relu:
            return _RedirectedRelu.apply(args[0])
        return func(*args, **(kwargs or {}))
