"""`googlenet_tv` is torchvision's network: same names, same numbers, same gradients."""

import copy

import pytest
import torch
from torchvision.models import googlenet as torchvision_googlenet

from inception.nets.registry import build_network

SIZES = [(224, 224), (97, 131), (64, 64), (15, 15)]


def pair(classes: int = 20, aux: bool = True):
    """Torchvision's network with lively weights, and ours with a copy of them."""
    theirs = torchvision_googlenet(num_classes=classes, aux_logits=aux, init_weights=False)
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    ours = build_network("googlenet_tv", num_classes=classes, aux=aux)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def switch_off_dropout(*networks):
    for network in networks:
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0


def close(ours, theirs):
    scale = theirs.abs().max().item()
    assert scale > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("aux", [True, False])
def test_state_dict_loads_both_ways(aux):
    theirs, ours = pair(aux=aux)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert [name for name, _ in theirs.named_parameters()] == [name for name, _ in ours.named_parameters()]
    theirs.load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_evaluation(size):
    theirs, ours = pair()
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("size", [(224, 224), (97, 131)], ids=str)
def test_training_all_three_outputs_by_name(size):
    theirs, ours = pair()
    switch_off_dropout(theirs, ours)
    x = torch.randn(2, 3, *size)
    expected, output = theirs.train()(x), ours.train()(x)
    close(output.logits, expected.logits)
    # torchvision before 0.21 carried the heads under each other's names (pytorch/vision#8736).
    close(output.aux[0], expected.aux_logits1)
    close(output.aux[1], expected.aux_logits2)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_training_with_dropout_at_one_seed():
    """Dropout draws at the same places and rates; only the order of the heads may differ, so without them."""
    theirs, ours = pair(aux=False)
    x = torch.randn(2, 3, 64, 64)
    torch.manual_seed(5)
    expected = theirs.train()(x)
    torch.manual_seed(5)
    close(ours.train()(x).logits, expected)


def test_dropout_rates():
    theirs, ours = pair()
    assert (ours.dropout.p, ours.aux1.dropout.p, ours.aux2.dropout.p) == (
        theirs.dropout.p,
        theirs.aux1.dropout.p,
        theirs.aux2.dropout.p,
    )


def test_gradients():
    theirs, ours = (network.double() for network in pair())
    switch_off_dropout(theirs, ours)
    x = torch.randn(2, 3, 65, 77, dtype=torch.float64)
    ours_x, theirs_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = ours.train()(ours_x), theirs.train()(theirs_x)
    (out.logits.square().mean() + 0.3 * sum(aux.square().mean() for aux in out.aux)).backward()
    heads = (expected.aux_logits1, expected.aux_logits2)
    (expected.logits.square().mean() + 0.3 * sum(aux.square().mean() for aux in heads)).backward()
    torch.testing.assert_close(ours_x.grad, theirs_x.grad, rtol=1e-8, atol=1e-12)
    gradients = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-8, atol=1e-12)


def test_fine_tuning_a_copy_leaves_the_original():
    _, ours = pair()
    twin = copy.deepcopy(ours)
    twin.reset_classifier(3)
    assert ours.fc.out_features == 20
