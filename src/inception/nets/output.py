"""What a network returns while it trains."""

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """Training-mode result, in reading order.

    Attributes:
        logits: N x num_classes, from the main classifier.
        aux: N x num_classes for each auxiliary head, from input to output; empty without heads.
    """

    logits: Tensor
    aux: tuple[Tensor, ...] = ()

    @property
    def aux_logits(self) -> tuple[Tensor, ...]:
        """`aux` under torchvision's and timm's name."""
        return self.aux
