"""A bound on what building a network may allocate, for descriptions that come from a file."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

SLACK = 1 << 24
"""Numbers (64 MB of float32) that a network may have beyond what its file holds."""


class _Budget(TorchFunctionMode):
    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.left = numbers

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.empty:
            shape = args[0] if isinstance(args[0], tuple | list) else args
            self._spend(math.prod(shape))
        elif func is torch.arange:  # response normalisation makes a matrix of channels x channels
            self._spend(args[0] ** 2)
        return func(*args, **(kwargs or {}))

    def _spend(self, numbers: int) -> None:
        self.left -= numbers
        if numbers < 1:
            raise ValueError("one of its layers would be empty")
        if self.left < 0:
            raise ValueError("it would be far larger than the weights given for it")


@contextmanager
def at_most(numbers: int) -> Iterator[None]:
    """Within the block, building modules of more than `numbers` parameters (and SLACK) raises ValueError.

    It is raised before the memory is taken.
    """
    with _Budget(numbers + SLACK):
        yield
