"""The linear probe: features computed once, then the best linear classifier on them."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from inception.nets.network import Network
from inception.runtime.device import autocast
from inception.train.trainee import EVALUATION_BATCH, Setting, score_error

PENALTIES = (300.0, 100.0, 30.0, 10.0, 3.0)
"""Candidate L2 penalties, strongest first, for features scaled to unit variance (sklearn's 1/C)."""
FOLDS = 4


@dataclass(frozen=True)
class Probe:
    """A solved linear classifier.

    Attributes:
        weight, bias: float32 K x D and K, to be used on the raw features.
        penalty: the L2 penalty that cross-validation chose.
        scores: (penalty, accuracy, standard error) of each candidate on held-out folds.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    scores: tuple[tuple[float, float, float], ...]


def fit_probe(views: Tensor, targets: Tensor, num_classes: int, seed: int) -> Probe:
    """Logistic regression on cached features, its penalty chosen by cross-validation.

    Multinomial, or with several labels an image one regression a label (an image's accuracy is then the share
    of its labels that are right).

    Of the penalties whose held-out accuracy is within one standard error of the best, the strongest is
    taken (Breiman et al. 1984, the one-standard-error rule): small sets prefer the simpler classifier.

    Args:
        views: float32 V x N x D, V views (such as the image and its mirror) of N images.
        targets: int64 N, or float32 N x K of 0 and 1.
        num_classes: K.
        seed: of the folds.
    """
    scale = float(views.std()) or 1.0
    views = views.to(torch.float64) / scale
    single = targets.dim() == 1
    folds = _fold_of(targets.numpy() if single else np.zeros(len(targets), dtype=np.int64), seed)
    correct = torch.zeros(len(PENALTIES), len(targets))
    for fold in range(FOLDS):
        held = torch.from_numpy(folds == fold)
        weights = torch.zeros(num_classes, views.shape[2] + 1, dtype=torch.float64)
        for row, penalty in enumerate(PENALTIES):
            weights = _solve(views[:, ~held], targets[~held], penalty, weights)
            logits = views[0, held] @ weights[:, :-1].T + weights[:, -1]
            correct[row, held] = rightness(logits, targets[held])
    accuracy = correct.mean(1)
    errors = [score_error(share, len(targets)) for share in accuracy.tolist()]
    best = int(accuracy.argmax())
    chosen = int((accuracy >= accuracy[best] - errors[best]).nonzero()[0])
    start = torch.zeros(num_classes, views.shape[2] + 1, dtype=torch.float64)
    weights = _solve(views, targets, PENALTIES[chosen], start)
    scores = tuple(zip(PENALTIES, accuracy.tolist(), errors, strict=True))
    return Probe((weights[:, :-1] / scale).float(), weights[:, -1].float(), PENALTIES[chosen], scores)


def rightness(logits: Tensor, targets: Tensor) -> Tensor:
    """float32 N: 1 where the answer is right; with several labels an image the share of right ones."""
    if targets.dim() == 1:
        return (logits.argmax(1) == targets).float()
    return ((logits > 0.0) == (targets > 0.5)).float().mean(1)


def _fold_of(targets: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A fold for each image, every class spread evenly over the folds."""
    order = np.random.default_rng(seed).permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]
    folds = np.empty(len(targets), dtype=np.int64)
    folds[order] = np.arange(len(targets)) % FOLDS
    return folds


def _solve(views: Tensor, targets: Tensor, penalty: float, start: Tensor) -> Tensor:
    """Weights K x (D + 1) that minimise mean cross-entropy + penalty / (2 N) |weights|^2, by L-BFGS.

    With several labels an image the cross-entropy is the sum of its labels' binary ones.
    """
    count, images, width = views.shape
    features = views.reshape(count * images, width)
    single = targets.dim() == 1
    labels = targets.repeat(count) if single else targets.to(features.dtype).repeat(count, 1)
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=100, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = features @ weights[:, :-1].T + weights[:, -1]
        if single:
            loss = F.cross_entropy(logits, labels)
        else:
            loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(labels)
        loss = loss + penalty / (2 * images) * weights[:, :-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()


@torch.inference_mode()
def cached_features(network: Network, setting: Setting, mirrored: bool) -> tuple[Tensor, Tensor]:
    """Features before the classifier for every readable training image, as evaluation sees it.

    Returns views float32 V x N x D (V = 2 with the mirror images, else 1) and targets int64 N (with several
    labels an image float32 N x K).
    """
    network.eval()
    features: list[list[Tensor]] = [[], []]
    targets: list[Tensor] = []
    setting.observer.epoch_started(0, 0, len(setting.train))
    for batch in setting.train.evaluation_batches(setting.preprocess, EVALUATION_BATCH):
        images = setting.preprocess.normalize(batch.images.to(setting.device))
        images = images.contiguous(memory_format=torch.channels_last)
        for collected, view in zip(
            features, (images, images.flip(3)) if mirrored else (images,), strict=False
        ):
            with autocast(setting.device, setting.precision):
                maps = network.forward_features(view)
                collected.append(network.forward_head(maps, pre_logits=True).float().cpu())
        targets.append(batch.targets)
        setting.observer.batch_done(len(batch.targets), float("nan"))
    views = torch.stack([torch.cat(collected) for collected in features if collected])
    return views, torch.cat(targets)
