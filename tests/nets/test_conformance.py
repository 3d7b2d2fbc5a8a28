"""Every network against independent implementations with the same weights, and the page that says so."""

import pytest
import torch
from conformance import PAGE, PEERS, copied, difference, line, relative, rows
from torch import nn

from inception.nets.registry import list_models

TOLERANCE = 1e-4
LINES = {
    tuple(cell.strip().strip("`") for cell in (cells[1], cells[4])): text
    for text in PAGE.read_text(encoding="utf-8").splitlines()
    if text.startswith("| `") and (cells := text.split("|"))
}


def test_the_page_has_every_network():
    assert {name for name, _ in LINES} == set(list_models()) == {name for name, _ in rows()}
    assert len(LINES) == len(rows())


@pytest.mark.parametrize(("name", "reference"), rows())
def test_page_and_measurement(name, reference):
    text = LINES[name, reference.strip("`")]
    stated = text.split("|")[5].strip()
    assert text == line(name, reference, stated)
    measured = difference(name, reference)
    assert (measured is None) == (stated == "")
    if measured is not None:
        assert measured < TOLERANCE
        assert float(stated) < TOLERANCE


@pytest.fixture
def inception_v3():
    reference = next(reference for name, reference in PEERS if name == "inception_v3")
    ours, theirs = copied("inception_v3", reference)
    for network in (ours, theirs):
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    return ours, theirs


def test_inception_v3_trains_as_torchvisions(inception_v3):
    """Both outputs, the statistics of batch norm and gradients, at the smallest size torchvision trains."""
    ours, theirs = inception_v3
    x = torch.randn(2, 3, 299, 299)
    output, expected = ours(x), theirs(x)
    assert relative(output.logits, expected.logits) < TOLERANCE
    assert relative(output.aux[0], expected.aux_logits) < TOLERANCE
    names = {name.replace("AuxLogits", "aux1"): buffer for name, buffer in theirs.named_buffers()}
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, names[name], rtol=1e-4, atol=1e-5, msg=name)
    (output.logits.square().mean() + output.aux[0].square().mean()).backward()
    (expected.logits.square().mean() + expected.aux_logits.square().mean()).backward()
    first = theirs.Conv2d_1a_3x3.conv.weight.grad
    assert relative(ours.Conv2d_1a_3x3.conv.weight.grad, first) < 1e-3


def test_counting_the_border_in_average_pools_moves_the_logits(inception_v3):
    """TF-slim and Keras leave it out, torchvision and timm count it: the argument must match the weights."""
    from inception.nets.registry import build_network

    ours, _ = inception_v3
    other = build_network("inception_v3", num_classes=ours.num_classes, count_include_pad=False)
    other.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 171, 171)
    with torch.no_grad():
        assert relative(other.eval()(x), ours.eval()(x)) > 0.01
