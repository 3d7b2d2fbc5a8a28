"""Batch normalisation without a factor, TF-slim's default: `batch_norm_scale=False`."""

import copy

import pytest
import torch
from facts import read_json
from network_cases import MODELS, images, make_shallow, narrow, on_meta
from torch import nn

from inception.data.preprocess import Preprocess
from inception.errors import UsageError
from inception.nets.complexity import profile
from inception.nets.network import Network
from inception.nets.registry import ARCHITECTURES, build_model, build_network
from inception.nets.summary import summarize
from inception.train.config import TrainConfig
from inception.train.layers import set_training_mode
from inception.train.optimizer import AveragedWeights, make_optimizer
from inception.weights.bundle import Bundle, load_bundle, save_bundle

NORMALISED = [name for name in MODELS if ARCHITECTURES[name].style.batch_norm]
normalised = pytest.mark.parametrize("name", NORMALISED)


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]


def counted(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def without_batches(network: Network) -> int:
    """TF-slim's rule: weights, beta, moving mean and variance of the stages."""
    stages = [getattr(network, stage) for stage in network.endpoints]
    statistics = sum(2 * norm.num_features for stage in stages for norm in norms(stage))
    return counted(*stages) + statistics


def other_weights(network: nn.Module) -> nn.Module:
    """Statistics and shifts as after training."""
    for norm in norms(network):
        norm.running_mean.normal_(std=0.3)
        norm.running_var.uniform_(0.5, 2.0)
        nn.init.normal_(norm.bias, std=0.3)
    return network


@normalised
def test_only_the_factors_are_gone(name):
    usual, without = on_meta(name), on_meta(name, batch_norm_scale=False)
    gone = {f"{path}.weight" for path, m in usual.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert gone
    assert usual.state_dict().keys() - without.state_dict().keys() == gone
    assert without.state_dict().keys() <= usual.state_dict().keys()
    channels = sum(norm.num_features for norm in norms(usual))
    assert counted(usual) - counted(without) == channels
    size = without.min_size + 60
    assert sum(cost.parameters for cost in profile(without, size)) == counted(without)
    table = summarize(without, size).to_dict()
    assert table["parameters_with_auxiliary"] == counted(without)
    assert on_meta(name, batch_norm_scale=True).state_dict().keys() == usual.state_dict().keys()


@pytest.mark.parametrize("name", [name for name in MODELS if name not in NORMALISED])
@pytest.mark.parametrize("scale", [False, True])
def test_networks_without_batch_norm_say_so(name, scale):
    sentence = f"{name} cannot be built: it has no batch normalisation: leave batch_norm_scale out"
    with pytest.raises(UsageError, match=sentence):
        build_network(name, batch_norm_scale=scale)


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("googlenet_tv", {"padding": "same"}, "inception_v1_base"),
        ("inception_v2", {"separable": True}, "inception_v2_base"),
        ("inception_v3", {}, "inception_v3_base"),
    ],
)
def test_slims_counts(shared, name, arguments, key):
    network = on_meta(name, aux_logits=False, batch_norm_scale=False, **arguments)
    assert without_batches(network) == read_json(shared, "param_counts")["quoted_from_slim_tests"][key]


def test_facenets_count(shared):
    facts = read_json(shared, "param_counts")["computed_by_arithmetic"]["inception_resnet_v1_facenet_trunk"]
    network = on_meta("inception_resnet_v1", batch_norm_scale=False)
    assert counted(*(getattr(network, stage) for stage in network.endpoints)) == facts["W+b+C(no gamma)"]


@normalised
def test_it_is_the_network_with_factors_of_one(name):
    without = other_weights(make_shallow(name, batch_norm_scale=False))
    usual = make_shallow(name)
    result = usual.load_state_dict(without.state_dict(), strict=False)
    assert all(key.endswith("bn.weight") for key in result.missing_keys) and not result.unexpected_keys
    x = images(without)
    with torch.no_grad():
        expected = usual.eval()(x)
        assert torch.equal(without.eval()(x), expected)
        assert torch.equal(torch.fx.symbolic_trace(without)(x), expected)
        exported = torch.export.export(without, (x,)).module()
        torch.testing.assert_close(exported(x), expected, rtol=1e-4, atol=1e-5)


def test_it_trains_and_what_touches_norms_leaves_it_whole():
    network = make_shallow("googlenet_bn", batch_norm_scale=False, aux_logits=True)
    config = TrainConfig(data="unused", optimizer="sgd", momentum=0.9, learning_rate=0.1, weight_decay=0.1)
    optimizer = make_optimizer(network, config)
    decayed, plain = optimizer.param_groups
    assert {p.dim() for p in plain["params"]} == {1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(network.parameters()))
    average = AveragedWeights(network, 0.5)
    set_training_mode(network, keep_statistics=True)
    before = [norm.running_mean.clone() for norm in norms(network)]
    output = network(images(network))
    sum(part.square().mean() for part in (output.logits, *output.aux)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    optimizer.step()
    average.update()
    for norm, mean in zip(norms(network), before, strict=True):
        assert torch.equal(norm.running_mean, mean)
    copy.deepcopy(network).load_state_dict(average.state_dict(network), strict=True)
    network.reset_classifier(3)
    assert all(norm.weight is None for norm in norms(network))
    pyramid = build_model("googlenet_bn", features_only=True, batch_norm_scale=False, **narrow("inception"))
    assert all(norm.weight is None for norm in norms(pyramid))


def test_a_bundle_remembers_it(tmp_path):
    network = other_weights(
        build_network("googlenet_bn", num_classes=2, width=0.05, stem="small", batch_norm_scale=False)
    )
    bundle = Bundle(
        network="googlenet_bn",
        arguments=network.arguments,
        labels=("a", "b"),
        preprocess=Preprocess(height=32, width=32),
        state_dict=network.state_dict(),
    )
    save_bundle(bundle, tmp_path / "bundle")
    again = load_bundle(tmp_path / "bundle")
    assert again.arguments["batch_norm_scale"] is False
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.build()(x), network.eval()(x))
