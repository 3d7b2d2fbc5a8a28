"""Muon: orthogonal steps for convolutions, SGD for the rest."""

import pytest
import torch

from inception.errors import UsageError
from inception.nets.registry import build_network
from inception.train.config import TrainConfig
from inception.train.muon import Muon, orthogonalized
from inception.train.optimizer import make_optimizer


@pytest.mark.parametrize("shape", [(8, 8), (16, 200), (200, 16), (64, 576)])
def test_singular_values_come_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
    # The iteration's coefficients trade exactness for speed: 0.7 to 1.2 is what they promise.
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_direction_is_that_of_the_polar_factor():
    torch.manual_seed(1)
    matrix = torch.randn(24, 60)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(
        orthogonalized(matrix).flatten(), (left @ right).flatten(), dim=0
    )
    assert cosine > 0.98


def test_convolutions_keep_the_norm_of_the_root_of_their_outputs():
    torch.manual_seed(2)
    weight = torch.nn.Parameter(torch.randn(16, 8, 3, 3))
    group = {"params": [weight], "orthogonalize": True, "momentum": 0.6, "weight_decay": 0.0}
    optimizer = Muon([group], lr=0.0)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    assert weight.norm().item() == pytest.approx(4.0, rel=1e-5)


def test_the_rest_is_nesterov_sgd():
    torch.manual_seed(3)
    ours, theirs = (torch.nn.Parameter(torch.arange(6.0)) for _ in range(2))
    group = {"params": [ours], "orthogonalize": False, "momentum": 0.9, "weight_decay": 0.01}
    muon = Muon([group], lr=0.1)
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
    for _ in range(4):
        ours.grad = theirs.grad = torch.randn(6)
        muon.step()
        sgd.step()
    torch.testing.assert_close(ours, theirs)


def test_each_parameter_is_in_the_right_group():
    network = build_network("googlenet_bn", num_classes=3, stem="small", width=0.05)
    optimizer = make_optimizer(
        network, TrainConfig(data="x", optimizer="muon", learning_rate=0.1, weight_decay=0.01)
    )
    dimensions = {group["orthogonalize"]: set() for group in optimizer.param_groups}
    for group in optimizer.param_groups:
        dimensions[group["orthogonalize"]] |= {parameter.dim() for parameter in group["params"]}
    assert dimensions == {True: {4}, False: {1, 2}}


def test_networks_without_batch_norm_are_refused():
    network = build_network("googlenet", num_classes=3, stem="small", width=0.05)
    with pytest.raises(UsageError, match="batch-normalised"):
        make_optimizer(network, TrainConfig(data="x", optimizer="muon", learning_rate=0.1))
