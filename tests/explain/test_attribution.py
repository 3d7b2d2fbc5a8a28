"""Attribution beside captum, and beside what the papers' formulas say when they are written out."""

import copy

import pytest
import torch
from explain_support import hooks, make_network
from torch import nn

from inception.errors import UsageError
from inception.explain.attribution import (
    METHODS,
    Options,
    Question,
    attribute,
    integrated_gradients_channels,
    score,
    smoothgrad_channels,
)
from inception.explain.layers import borrowed
from inception.explain.render import in_precision

QUESTION = Question(2)


def test_grad_cam_equals_captums(network, images):
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    lit = 0
    for target in range(5):
        network.train()
        ours = attribute(network, images, Question(target), "grad-cam", Options(layer="inception4c"))
        assert network.training
        theirs = captum.LayerGradCam(network.eval(), network.inception4c).attribute(
            images, target=target, relu_attributions=True
        )
        theirs = captum.LayerAttribution.interpolate(theirs, (32, 32), "bilinear")
        lit += int((theirs.detach() > 0).any())
        torch.testing.assert_close(ours, theirs[:, 0].detach())
    assert lit > 1


def test_integrated_gradients_equal_captums(network, images):
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    # In double precision: the two take the path's points in batches of other sizes, whose rounding differs,
    # and a point that lies within rounding of a ReLU's kink has another gradient on its other side.
    network, images = copy.deepcopy(network).double(), images.double()
    with borrowed(network), torch.enable_grad():
        ours = integrated_gradients_channels(network, images, QUESTION, Options(steps=20))
    theirs = captum.IntegratedGradients(network.eval()).attribute(images, target=2, n_steps=20)
    bound = 1e-6 * float(theirs.abs().max())  # captum rounds the path's points and weights to float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=bound)
    summed = attribute(network, images, QUESTION, "integrated-gradients", Options(steps=20))
    torch.testing.assert_close(summed.double(), theirs.sum(dim=1), rtol=0, atol=3 * bound)


def test_smoothgrad_equals_captums_with_the_same_noise(network, images):
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    one = images[:1]
    with borrowed(network), torch.enable_grad():
        ours = smoothgrad_channels(network, one, QUESTION, Options(samples=12, noise=0.1, seed=4))
    tunnel = captum.NoiseTunnel(captum.Saliency(network.eval()))
    torch.manual_seed(4)
    deviation = float(0.1 * (one.max() - one.min()))
    theirs = tunnel.attribute(one, nt_type="smoothgrad", nt_samples=12, stdevs=deviation, target=2, abs=False)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [8, 6])
def test_occlusion_equals_captums(network, images, window):
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    ours = attribute(network, images[:2], QUESTION, "occlusion", Options(window=window))
    theirs = captum.Occlusion(network.eval()).attribute(
        images[:2],
        sliding_window_shapes=(3, window, window),
        strides=(3, window // 2, window // 2),
        target=2,
    )
    torch.testing.assert_close(ours, theirs[:, 0], rtol=1e-4, atol=1e-5)


def test_grad_cam_plus_plus_by_true_second_and_third_derivatives():
    """Equation 10 with derivatives of Y = exp(score) by autograd instead of powers of the first one."""
    torch.manual_seed(0)
    network = make_network("lenet5", width=1.0, num_classes=4, stem="large").eval()
    images = torch.rand(1, 3, 32, 32)
    ours = attribute(network, images, Question(1), "grad-cam++", Options(layer="pool1"))
    features = network.forward_endpoints(images, ["pool1"])["pool1"].detach().double().requires_grad_()
    rest = nn.Sequential(*(getattr(network, name) for name in network.endpoints[2:])).double()
    network.double()
    # A function that is linear around the features, as a ReLU network is: tanh would bend it.
    value = network.forward_head(rest(features))[0, 1]
    [slope] = torch.autograd.grad(value, [features])
    slope = slope.detach()

    def y(shift):  # exp(score) along every single coordinate
        return torch.exp(value.detach() + slope * shift)

    shift = torch.zeros_like(features, requires_grad=True)
    [first] = torch.autograd.grad(y(shift).sum(), [shift], create_graph=True)
    [second] = torch.autograd.grad(first.sum(), [shift], create_graph=True)
    [third] = torch.autograd.grad(second.sum(), [shift])
    total = features.detach().sum(dim=(2, 3), keepdim=True)
    alpha = second / (2 * second + total * third)
    alpha[second == 0] = 0
    # The map is scaled by exp(score), which this package leaves out.
    weights = (alpha * first.relu()).sum(dim=(2, 3), keepdim=True) / torch.exp(value)
    expected = (weights * features).sum(dim=1, keepdim=True).relu().detach().float()
    expected = nn.functional.interpolate(expected, (32, 32), mode="bilinear", align_corners=False)[:, 0]
    assert float(expected.max()) > 0
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)


def test_integrated_gradients_are_complete(network, images):
    found = attribute(network, images, QUESTION, "integrated-gradients", Options(steps=100))
    with borrowed(network), torch.no_grad():
        difference = score(network, images, QUESTION) - score(network, torch.zeros_like(images), QUESTION)
    torch.testing.assert_close(found.sum(dim=(1, 2)), difference, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_in_bfloat16_gives_a_like_map(network, images, method):
    options = Options(layer="inception4a", steps=8, samples=8)
    copied, dtype = in_precision(network, "bfloat16", images.device)
    assert dtype == torch.bfloat16
    lit = 0
    for target in range(5):
        exact, rough = (
            attribute(chosen, images[:1], Question(target), method, options) for chosen in (network, copied)
        )
        assert rough.dtype == torch.float32
        if float(exact.abs().max()) > 0:
            likeness = nn.functional.cosine_similarity(rough.flatten(), exact.flatten(), dim=0)
            assert float(likeness) > 0.85
            lit += 1
    assert lit > 1


def test_a_contrast_is_the_difference_of_two_questions(network, images):
    options = Options(steps=10)
    contrast = attribute(network, images, Question(2, against=0), "integrated-gradients", options)
    for_it, for_other = (
        attribute(network, images, Question(target), "integrated-gradients", options) for target in (2, 0)
    )
    torch.testing.assert_close(contrast, for_it - for_other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_auxiliary_heads(aux_network, images, method):
    options = Options(steps=4, samples=4)
    first = attribute(aux_network, images[:1], Question(1, head="aux1"), method, options)
    main = attribute(aux_network, images[:1], Question(1), method, options)
    assert first.shape == main.shape == (1, 32, 32)
    assert not torch.allclose(first, main)


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_left_as_it_was_even_after_an_exception(network, images, method):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    attribute(network, images[:1], QUESTION, method, Options(steps=4, samples=4))
    with pytest.raises(UsageError):
        attribute(network, images[:1], Question(2, head="nonsense"), method)
    assert hooks(network) == 0
    assert network.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_same_seed_gives_the_same_map(network, images):
    first, second, other = (
        attribute(network, images[:1], QUESTION, "smoothgrad", Options(samples=4, seed=seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_wrong_requests_are_answered_in_one_sentence(network, aux_network, images):
    with pytest.raises(UsageError, match="there is no class 9"):
        attribute(network, images, Question(9), "occlusion")
    with pytest.raises(UsageError, match="no method is called"):
        attribute(network, images, QUESTION, "guess")
    with pytest.raises(UsageError, match="needs a layer with a map"):
        attribute(network, images, QUESTION, "grad-cam", Options(layer="logits"))
    with pytest.raises(UsageError, match="does not depend on layer"):
        attribute(aux_network, images, Question(1, head="aux1"), "grad-cam", Options(layer="inception5a"))
    with pytest.raises(UsageError, match="window must have"):
        attribute(network, images, QUESTION, "occlusion", Options(window=40))
