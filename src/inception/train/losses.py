"""What training minimises."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from inception.nets.output import Output


def training_loss(
    output: Output,
    targets: Tensor,
    label_smoothing: float,
    aux_weight: float,
    class_weights: Tensor | None = None,
    multilabel: bool = False,
) -> Tensor:
    """Cross-entropy of the main classifier plus `aux_weight` times that of each auxiliary head, in nats.

    With `multilabel` every class is a question of its own: the mean of N x num_classes binary
    cross-entropies, targets float32 in 0..1, label smoothing towards one half.

    Args:
        output: logits N x num_classes (main and auxiliary); computed in float32 whatever their dtype.
        targets: int64 N, or float32 N x num_classes whose rows add up to 1.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016, section 7).
        aux_weight: 0.3 in Szegedy et al. 2015, section 5.
        class_weights: float32 num_classes; each image counts with its class's weight (with mixed targets,
            their mean), and the sum is divided by N, so that a batch's classes do not change its scale.
    """

    def loss_of(logits: Tensor) -> Tensor:
        if multilabel:
            smoothed = targets * (1.0 - label_smoothing) + 0.5 * label_smoothing
            return F.binary_cross_entropy_with_logits(logits.float(), smoothed)
        return _cross_entropy(logits, targets, label_smoothing, class_weights)

    loss = loss_of(output.logits)
    for logits in output.aux:
        loss = loss + aux_weight * loss_of(logits)
    return loss


def _cross_entropy(
    logits: Tensor, targets: Tensor, label_smoothing: float, class_weights: Tensor | None
) -> Tensor:
    if class_weights is None:
        return F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
    losses = F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing, reduction="none")
    weights = class_weights[targets] if targets.dim() == 1 else targets @ class_weights
    return (weights * losses).mean()


def balanced_weights(labels: Sequence[int], classes: int) -> Tensor:
    """float32 `classes`: the inverse of each class's share, such that the images' mean weight is 1.

    A class without images weighs 0.
    """
    counts = torch.bincount(torch.tensor(labels, dtype=torch.int64), minlength=classes).double()
    present = int((counts > 0).sum())
    weights = len(labels) / (present * counts)
    return torch.where(counts > 0, weights, 0.0).float()
