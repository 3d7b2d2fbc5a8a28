"""Training images mixed with each other: mixup and cutmix, drawn from an explicit generator."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def mix_generator(seed: int, epoch: int, position: int, rank: int) -> np.random.Generator:
    """The generator of one batch's mixing, so that a resumed run mixes as the uninterrupted one."""
    # Five words keep this stream apart from those of order (four) and views (three).
    return np.random.default_rng((seed, epoch, position, rank, 2))


def mix_batch(
    images: Tensor, targets: Tensor, classes: int, mixup: float, cutmix: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix every image with another of its batch; with both strengths above 0 each batch draws one kind.

    mixup (Zhang et al. 2018): x = l x1 + (1 - l) x2 with l ~ Beta(mixup, mixup); cutmix (Yun et al. 2019): a
    box of area 1 - l of x1 is replaced by x2's, with l ~ Beta(cutmix, cutmix) set right where the box leaves
    the image. The targets are mixed with the same l.

    Args:
        images: float N x C x H x W.
        targets: int64 N, or float32 N x K of 0 and 1 (several labels an image).
        classes: K.

    Returns images of the same shape, and targets float32 N x K, whose rows add up to what they did before.
    """
    partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    cut = cutmix > 0.0 and (mixup == 0.0 or rng.random() < 0.5)
    strength = cutmix if cut else mixup
    share = float(rng.beta(strength, strength))
    if cut:
        height, width = images.shape[2:]
        top, bottom, left, right = _box(height, width, share, rng)
        share = 1.0 - (bottom - top) * (right - left) / (height * width)
        images = images.clone()
        images[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    else:
        images = share * images + (1.0 - share) * images[partner]
    hot = targets if targets.dim() == 2 else F.one_hot(targets, classes).float()
    return images, share * hot + (1.0 - share) * hot[partner]


def _box(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    side = math.sqrt(1.0 - share)
    rows, columns = int(height * side), int(width * side)
    top, left = int(rng.integers(height)) - rows // 2, int(rng.integers(width)) - columns // 2
    return max(top, 0), min(top + rows, height), max(left, 0), min(left + columns, width)
