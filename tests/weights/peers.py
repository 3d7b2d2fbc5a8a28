"""Other libraries' networks with lively random weights, and how far an imported bundle's logits are off."""

import numpy as np
import torch
from torch import Tensor, nn

from inception.weights.bundle import Bundle

TOLERANCE = 1e-4


def liven(model: nn.Module, seed: int = 1) -> nn.Module:
    """Random weights and statistics under which activations keep their scale through all layers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                if module.weight is not None:
                    module.weight.uniform_(0.7, 1.3, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.7, 1.3, generator=generator)
    return model.eval()


def images(side: int | tuple[int, int], seed: int = 2, scale: float = 1.0) -> Tensor:
    height, width = (side, side) if isinstance(side, int) else side
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) * scale


def logits(bundle: Bundle, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return bundle.build()(x).numpy()


def difference(ours: np.ndarray | Tensor, theirs: np.ndarray | Tensor) -> float:
    """The largest difference, relative to the largest logit."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 0.05
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
