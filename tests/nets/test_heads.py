"""Classifier and auxiliary heads: where they sit, what they return, when they run."""

import pytest
import torch
from network_cases import make
from torch import nn

from inception.errors import UsageError
from inception.nets.output import Output
from inception.nets.registry import ARCHITECTURES, build_network

WITH_AUX = [name for name, architecture in ARCHITECTURES.items() if architecture.aux_heads]
GOOGLENETS = [name for name in WITH_AUX if name.startswith("googlenet")]


def network_with_aux(name: str):
    network = make(name, num_classes=7, aux=True)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.equal(left, right)


@pytest.mark.parametrize("name", WITH_AUX)
def test_perturbing_one_head_moves_its_field_alone(name):
    network = network_with_aux(name).train()
    x = torch.randn(2, 3, 80, 80)
    with torch.no_grad():
        before = network(x)
        for index, head in enumerate(network.aux_taps):
            getattr(network, head).get_classifier().bias += 1
            after = network(x)
            getattr(network, head).get_classifier().bias -= 1
            assert same(after.logits, before.logits)
            for position, (new, old) in enumerate(zip(after.aux, before.aux, strict=True)):
                assert same(new, old) == (position != index)
        network.fc.bias += 1
        after = network(x)
    assert not same(after.logits, before.logits)
    assert all(same(new, old) for new, old in zip(after.aux, before.aux, strict=True))


@pytest.mark.parametrize("name", GOOGLENETS)
def test_heads_stand_on_4a_and_4d(name):
    network = network_with_aux(name).train()
    assert network.aux_taps == {"aux1": "inception4a", "aux2": "inception4d"}
    network.eval()
    x = torch.randn(2, 3, 80, 80)
    with torch.no_grad():
        maps = network(x, return_endpoints=["inception4a", "inception4d"])
        expected = network.aux1(maps["inception4a"]), network.aux2(maps["inception4d"])
        for module in network.modules():
            module.training = False
        network.training = True  # the outputs of training, with the statistics of evaluation
        output = network(x)
    assert maps["inception4d"].shape[1] == 528
    for ours, alone in zip(output.aux, expected, strict=True):
        torch.testing.assert_close(ours, alone)


def test_output_reads_from_left_to_right():
    output = build_network("googlenet", num_classes=3).train()(torch.randn(2, 3, 64, 64))
    assert Output._fields == ("logits", "aux")
    assert isinstance(output, Output)
    assert output.aux_logits is output.aux
    assert len(output.aux) == 2
    assert {tuple(part.shape) for part in (output.logits, *output.aux)} == {(2, 3)}
    plain = build_network("googlenet", num_classes=3, aux=False).train()(torch.randn(2, 3, 64, 64))
    assert isinstance(plain, Output)
    assert plain.aux == ()


@pytest.mark.parametrize("name", WITH_AUX)
def test_evaluation_graphs_hold_no_auxiliary_head(name):
    network = network_with_aux(name).eval()
    x = torch.randn(1, 3, 80, 80)
    assert any("aux" in key for key in network.state_dict())
    exported = torch.export.export(network, (x,)).run_decompositions()
    used = {node.target for node in exported.graph.nodes if node.users}
    inputs = {
        spec.target for spec in exported.graph_signature.input_specs if spec.target and spec.arg.name in used
    }
    assert any("fc.weight" in name for name in inputs)
    assert not [name for name in inputs if "aux" in name]
    traced = torch.fx.symbolic_trace(network)
    assert not [node for node in traced.graph.nodes if "aux" in str(node.target)]
    poisoned = []
    for head in network.aux_taps:
        getattr(network, head).register_forward_hook(lambda *_: poisoned.append(1))
    network(x)
    assert poisoned == []


def test_dropout_of_the_paper():
    network = build_network("googlenet")
    assert (network.dropout.p, network.aux1.dropout.p, network.aux2.dropout.p) == (0.4, 0.7, 0.7)
    ours = build_network("googlenet", dropout=0.1, aux_dropout=0.3)
    assert (ours.dropout.p, ours.aux1.dropout.p, ours.aux2.dropout.p) == (0.1, 0.3, 0.3)


@pytest.mark.parametrize("name", WITH_AUX)
def test_removing_the_heads_leaves_evaluation_alone(name):
    network = network_with_aux(name).eval()
    x = torch.randn(1, 3, 80, 80)
    with torch.no_grad():
        before = network(x)
        network.remove_auxiliary_heads()
        assert same(network(x), before)
    assert not [key for key in network.state_dict() if "aux" in key]
    assert network.train()(torch.randn(2, 3, 80, 80)).aux == ()


def test_fully_connected_head():
    network = build_network("googlenet", head="fully_connected", image_size=64, num_classes=5).eval()
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 5)
    assert network.forward_head(
        network.forward_features(torch.randn(1, 3, 64, 64)), pre_logits=True
    ).shape == (1, 1024)
    with pytest.raises(ValueError, match="fully connected head needs maps of 2 x 2, got 4 x 4"):
        network(torch.randn(1, 3, 128, 128))


def test_average_head_is_the_mean_over_the_map():
    network = build_network("googlenet", num_classes=5, aux=False).eval()
    x = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        features = network.forward_features(x)
        expected = nn.functional.linear(features.flatten(2).mean(2), network.fc.weight, network.fc.bias)
        torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must be positive, not 0"),
        ({"width": -0.1}, "width must be positive, not -0.1"),
        ({"stem": "tiny"}, "stem must be 'large'"),
        ({"colour": 1}, "does not take these arguments"),
    ],
)
def test_impossible_arguments(arguments, message):
    with pytest.raises(UsageError, match=message):
        build_network("googlenet", **arguments)
