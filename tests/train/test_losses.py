"""The loss against formulas written out in numpy."""

import numpy as np
import pytest
import torch

from inception.nets.output import Output
from inception.train.losses import training_loss


def by_hand(logits: np.ndarray, targets: np.ndarray, smoothing: float) -> float:
    """Mean cross-entropy against (1 - s) one-hot + s / K."""
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    wanted = np.full(logits.shape, smoothing / logits.shape[1])
    wanted[np.arange(len(targets)), targets] += 1 - smoothing
    return float(-(wanted * log_probabilities).sum(1).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("aux_weight", [0.3, 0.0, 1.0])
@pytest.mark.parametrize("heads", [0, 1, 2])
def test_main_loss_plus_weighted_auxiliary_losses(smoothing, aux_weight, heads):
    rng = np.random.default_rng(heads)
    arrays = [rng.normal(0, 3, (6, 5)) for _ in range(1 + heads)]
    targets = rng.integers(0, 5, 6)
    expected = by_hand(arrays[0], targets, smoothing)
    expected += aux_weight * sum(by_hand(array, targets, smoothing) for array in arrays[1:])
    main, *aux = (torch.tensor(array, dtype=torch.float32) for array in arrays)
    loss = training_loss(Output(main, tuple(aux)), torch.from_numpy(targets), smoothing, aux_weight)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_bfloat16_logits_are_summed_in_float32():
    logits = torch.randn(64, 100, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.arange(64)
    loss = training_loss(Output(logits, ()), targets, 0.1, 0.3)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(by_hand(logits.double().numpy(), targets.numpy(), 0.1), rel=1e-5)


def test_every_head_gets_its_gradient():
    heads = [torch.zeros(2, 4, requires_grad=True) for _ in range(3)]
    training_loss(Output(heads[0], tuple(heads[1:])), torch.tensor([0, 3]), 0.0, 0.3).backward()
    assert torch.allclose(heads[1].grad, 0.3 * heads[0].grad)
    assert torch.allclose(heads[2].grad, 0.3 * heads[0].grad)
    # Softmax minus one-hot, over the batch.
    expected = (torch.full((2, 4), 0.25) - torch.eye(4)[[0, 3]]) / 2
    assert torch.allclose(heads[0].grad, expected)
