"""What training minimises."""

import torch.nn.functional as F
from torch import Tensor

from inception.nets.output import Output


def training_loss(output: Output, targets: Tensor, label_smoothing: float, aux_weight: float) -> Tensor:
    """Cross-entropy of the main classifier plus `aux_weight` times that of each auxiliary head, in nats.

    Args:
        output: logits N x num_classes (main and auxiliary); computed in float32 whatever their dtype.
        targets: int64 N.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016, section 7).
        aux_weight: 0.3 in Szegedy et al. 2015, section 5.
    """
    loss = F.cross_entropy(output.logits.float(), targets, label_smoothing=label_smoothing)
    for logits in output.aux:
        loss = loss + aux_weight * F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
    return loss
