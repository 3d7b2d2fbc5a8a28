"""Which parameters are decayed, and what the averaged weights are."""

import pytest
import torch
from torch import nn

from inception.nets.registry import build_network
from inception.train.config import TrainConfig
from inception.train.optimizer import AveragedWeights, make_optimizer
from inception.train.rmsprop import RMSProp


def config(**options) -> TrainConfig:
    defaults = {"data": "x", "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.01}
    return TrainConfig(**{**defaults, **options})


@pytest.mark.parametrize("name", ["googlenet", "googlenet_bn"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_biases_and_norms_are_not_decayed(name, optimizer):
    network = build_network(name, num_classes=3, width=0.05, aux_logits=True)
    groups = make_optimizer(network, config(optimizer=optimizer)).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == len(list(network.parameters()))
    for module in network.modules():
        for key, parameter in module.named_parameters(recurse=False):
            weight = isinstance(module, nn.Conv2d | nn.Linear) and key == "weight"
            assert decay[id(parameter)] == (0.01 if weight else 0.0)


def test_frozen_parameters_are_left_out():
    network = build_network("googlenet_bn", num_classes=3, width=0.05)
    network.conv1.requires_grad_(False)
    taken = {id(p) for group in make_optimizer(network, config()).param_groups for p in group["params"]}
    assert not taken & {id(p) for p in network.conv1.parameters()}
    network.requires_grad_(False)
    network.fc.bias.requires_grad_(True)
    [group] = make_optimizer(network, config()).param_groups
    assert group["params"] == [network.fc.bias]


def test_recipes_choose_nesterov_or_plain_momentum():
    network = nn.Linear(2, 2)
    for chosen, momentum, nesterov in [("yes", 0.9, True), ("no", 0.9, False), ("yes", 0.0, False)]:
        made = make_optimizer(network, config(nesterov=chosen, momentum=momentum))
        assert isinstance(made, torch.optim.SGD)
        assert made.defaults["nesterov"] is nesterov
        assert made.defaults["momentum"] == momentum
    assert isinstance(make_optimizer(network, config(optimizer="adamw")), torch.optim.AdamW)
    assert isinstance(make_optimizer(network, config(optimizer="rmsprop")), RMSProp)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_averages_follow_the_recurrence(decay):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = AveragedWeights(network, decay)
    expected = {n: v.double().clone() for n, v in network.state_dict().items() if v.is_floating_point()}
    for step in range(1, 40):
        network(torch.randn(8, 3))
        with torch.no_grad():
            network[0].weight.add_(torch.randn(4, 3))
        average.update()
        share = min(decay, (1 + step) / (10 + step)) if decay else 0.0
        for name, value in network.state_dict().items():
            if name in expected:
                expected[name] = share * expected[name] + (1 - share) * value.double()
    state = average.state_dict(network)
    assert state.keys() == network.state_dict().keys()
    for name, value in expected.items():
        assert torch.allclose(state[name].double(), value, rtol=1e-5, atol=1e-6), name
    assert int(state["1.num_batches_tracked"]) == 39
    if decay == 0.0:
        assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


def test_averaging_leaves_the_network_alone():
    network = nn.Linear(3, 2)
    before = network.weight.detach().clone()
    average = AveragedWeights(network, 0.9)
    average.update()
    average.values["weight"].zero_()
    assert torch.equal(network.weight, before)
