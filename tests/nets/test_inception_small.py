"""This project's network for small images: its counts by hand, and that whitening fits its first layer."""

import pytest
import torch

from inception.nets.complexity import profile
from inception.nets.registry import build_network
from inception.train.optimizer import is_batch_normalized
from inception.train.whiten import whiten

# (kernel, channels in, channels out, side of the map it is computed on) of every convolution.
CONVOLUTIONS = [
    (2, 3, 24, 31),
    (3, 24, 64, 31),
    (1, 64, 16, 15),
    (3, 64, 48, 15),
    (3, 64, 256, 15),
    (1, 256, 64, 7),
    (3, 256, 192, 7),
    (3, 256, 256, 7),
    (1, 256, 64, 3),
    (3, 256, 192, 3),
]


def test_counts_by_hand():
    network = build_network("inception_small")
    weights = sum(kernel**2 * inputs * outputs for kernel, inputs, outputs, _ in CONVOLUTIONS)
    norms = sum(2 * outputs for _, _, outputs, _ in CONVOLUTIONS)
    assert sum(p.numel() for p in network.parameters()) == weights + norms + 256 * 10 + 10
    operations = sum(k**2 * inputs * outputs * side**2 for k, inputs, outputs, side in CONVOLUTIONS)
    assert sum(cost.multiply_adds for cost in profile(network, 32)) == operations + 256 * 10


@pytest.mark.parametrize("side", [9, 28, 32, 33, 64])
def test_any_small_side(side):
    network = build_network("inception_small", num_classes=7, in_chans=1).eval()
    assert network(torch.zeros(2, 1, side, side)).shape == (2, 7)


def test_it_is_made_for_muon_and_whitening():
    network = build_network("inception_small")
    assert is_batch_normalized(network)
    # Both signs of all twelve components of its 2x2 patches, and nothing else.
    whiten(network, torch.randn(50, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    filters = network.conv1.conv.weight.flatten(1)
    assert torch.equal(filters[:12], -filters[12:])
    gram = filters[:12] @ filters[:12].T
    torch.testing.assert_close(gram, gram.diagonal().diag(), atol=1e-4, rtol=0)
