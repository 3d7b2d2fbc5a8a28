"""Names of layers, outputs in one pass, and a network that is given back as it was."""

import pytest
import torch
from explain_support import hooks, make_network

from inception.errors import UsageError
from inception.explain.layers import activations, borrowed, find_layer, forward_taps


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("logits", ""),
        ("mixed4a", "inception4a"),
        ("Mixed_4b", "inception4a"),
        ("inception_4a/output", "inception4a"),
        ("mixed4b_pool_reduce", "inception4b.pool_proj"),
        ("mixed4a_3x3_bottleneck", "inception4a.b3x3_reduce"),
        ("mixed3b_1x1", "inception3b.b1x1"),
        ("inception_4b/5x5_reduce", "inception4b.b5x5_reduce"),
        ("inception4b/5x5", "inception4b.b5x5"),
        ("inception4b.b5x5.conv", "inception4b.b5x5.conv"),
        ("conv2d0", "conv1"),
        ("aux1", "aux1"),
        ("aux4d", "aux2"),
    ],
)
def test_names_of_all_tools(aux_network, name, path):
    assert find_layer(aux_network, name) == path


def test_torchvision_names_of_branches():
    network = make_network("googlenet_tv", aux_logits=False)
    assert find_layer(network, "mixed4a_3x3") == "inception4a.branch2.1"
    assert find_layer(network, "mixed4a_pool_reduce") == "inception4a.branch4.1"


def test_unknown_names_are_answered_with_near_ones(network):
    with pytest.raises(UsageError, match=r"did you mean .*inception4a"):
        find_layer(network, "inceptoin4a")
    with pytest.raises(UsageError, match="no auxiliary heads"):
        find_layer(network, "aux1")


def test_outputs_are_those_of_the_network_itself(aux_network, images):
    aux_network.eval()
    with torch.no_grad():
        stages = aux_network.forward_endpoints(images, ["inception3b", "inception4a"])
        logits = aux_network(images)
        auxiliary = aux_network.aux1(stages["inception4a"])
        with borrowed(aux_network):
            found = activations(aux_network, images, ["mixed4a", "logits", "aux1", "mixed3b_3x3"])
    assert list(found) == ["mixed4a", "logits", "aux1", "mixed3b_3x3"]
    torch.testing.assert_close(found["mixed4a"], stages["inception4a"])
    torch.testing.assert_close(found["logits"], logits)
    torch.testing.assert_close(found["aux1"], auxiliary)
    channels = found["mixed3b_3x3"].shape[1]
    start = aux_network.inception3b.b1x1.conv.out_channels
    torch.testing.assert_close(found["mixed3b_3x3"], stages["inception3b"][:, start : start + channels])


def test_activations_in_place_do_not_overwrite_what_was_read(network, images):
    with borrowed(network), torch.no_grad():
        found = activations(network, images, ["inception3a.b1x1.bn", "inception3a.b1x1"])
    assert found["inception3a.b1x1.bn"].min() < 0
    torch.testing.assert_close(found["inception3a.b1x1.bn"].relu(), found["inception3a.b1x1"])


def test_the_pass_ends_with_the_last_layer_asked_for(network, images):
    ran = []
    handle = network.inception4b.register_forward_hook(lambda *_: ran.append("4b"))
    with borrowed(network), torch.no_grad():
        activations(network, images, ["inception4a"])
    handle.remove()
    assert ran == []
    assert hooks(network) == 0


def test_flags_and_hooks_are_as_before_even_after_an_exception(network, images):
    network.conv1.eval()
    network.conv2.conv.weight.requires_grad_(False)
    modes = [module.training for module in network.modules()]
    flags = [parameter.requires_grad for parameter in network.parameters()]

    def broken(*_):
        raise RuntimeError("broken")

    handle = network.inception4a.register_forward_hook(broken)
    with pytest.raises(RuntimeError, match="broken"), borrowed(network):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
        forward_taps(network, images, ["inception3a", "inception4b"])
    handle.remove()
    assert hooks(network) == 0
    assert modes == [module.training for module in network.modules()]
    assert flags == [parameter.requires_grad for parameter in network.parameters()]


def test_a_layer_without_part_in_evaluation_is_refused(aux_network, images):
    with borrowed(aux_network), pytest.raises(UsageError, match="takes no part"):
        activations(aux_network, images, ["aux1.fc1"])
    assert hooks(aux_network) == 0
