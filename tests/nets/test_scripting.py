"""`torch.jit.script` of every network: the same numbers, also from a file (torchvision's own test)."""

import copy
import io

import pytest
import torch
from network_cases import every_model, images, make_shallow, narrow, without_dropout
from torch import nn

from inception.nets.registry import build_model

# torch calls torch.jit deprecated (since 2.9), and complains of an annotation in its own GraphModule.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:`torch\.jit:FutureWarning"),
    pytest.mark.filterwarnings(r"ignore:`torch\.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning"),
]


@pytest.fixture(autouse=True)
def _as_it_is_written():
    """Without the optimiser, which takes most of the time and is torch's."""
    with torch.jit.optimized_execution(False):
        yield


def from_file(scripted: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    stream = io.BytesIO()
    torch.jit.save(scripted, stream)
    stream.seek(0)
    return torch.jit.load(stream)


def close(scripted: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert expected.abs().max() > 0
    torch.testing.assert_close(scripted, expected, rtol=tolerance, atol=tolerance)


@every_model
def test_evaluation(name):
    network = make_shallow(name).eval()
    scripted = torch.jit.script(network)
    loaded = from_file(scripted)
    side = max(64, network.min_size)
    with torch.no_grad():
        for x in (images(network), torch.randn(3, 3, side + 7, side + 32)):
            expected = network(x)
            close(scripted(x), expected, 1e-4)
            close(loaded(x), expected, 3e-4)
    assert not [key for key in scripted.state_dict() if key.startswith("aux")]


@pytest.mark.parametrize("name", ["googlenet", "googlenet_tv", "inception_v2", "inception_v3", "alexnet"])
def test_training_gives_the_logits_and_a_tuple_of_auxiliary_logits(name):
    network = without_dropout(make_shallow(name)).train()
    twin = copy.deepcopy(network)
    x = images(network)
    logits, aux = torch.jit.script(twin)(x)
    expected = network(x)
    assert isinstance(aux, tuple)
    assert len(aux) == len(network.aux_taps) == len(expected.aux)
    for ours, theirs in zip((logits, *aux), (expected.logits, *expected.aux), strict=True):
        close(ours, theirs, 1e-4)
    sum(part.square().mean() for part in (logits, *aux)).backward()
    sum(part.square().mean() for part in (expected.logits, *expected.aux)).backward()
    # The scripted network holds the same parameters: they have the gradients.
    for (key, ours), theirs in zip(twin.named_parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4, msg=key)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("googlenet", {"head": "fully_connected", "image_size": 64}),
        ("googlenet_bn", {"padding": "same", "stem": "small", "batch_norm_scale": False}),
        ("inception_v2", {"separable": True}),
        ("inception_v3", {"padding": "same", "num_classes": 0, "global_pool": ""}),
        ("nin", {"num_classes": 0}),
    ],
)
def test_variants(name, arguments):
    network = make_shallow(name, **arguments).eval()
    with torch.no_grad():
        x = images(network)
        close(torch.jit.script(network)(x), network(x), 1e-4)


def test_feature_pyramid():
    pyramid = build_model("googlenet_bn", features_only=True, **narrow("inception")).eval()
    x = images(pyramid.network)
    with torch.no_grad():
        for ours, theirs in zip(torch.jit.script(pyramid)(x), pyramid(x), strict=True):
            close(ours, theirs, 1e-4)


def test_a_network_within_another_module():
    network = make_shallow("vgg11").eval()
    x = images(network)
    with torch.no_grad():
        expected = network(x).softmax(1)
        close(torch.jit.script(nn.Sequential(network, nn.Softmax(1)))(x), expected, 1e-4)


def test_images_that_do_not_fit_are_still_refused():
    scripted = torch.jit.script(make_shallow("vgg11").eval())
    with pytest.raises(torch.jit.Error, match="expected images as N x 3 x H x W, got 2 x 1 x 64 x 64"):
        scripted(torch.randn(2, 1, 64, 64))
    with pytest.raises(torch.jit.Error, match="images of at least 32 x 32 pixels, got 31 x 40"):
        scripted(torch.randn(2, 3, 31, 40))
