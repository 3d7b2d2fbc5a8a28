"""RMSProp in TensorFlow's form, against its equations; gradient clipping against its definition."""

import pytest
import torch
from test_step import make_batch, make_step
from torch import nn

from inception.train.rmsprop import RMSProp


def test_it_follows_the_equations():
    torch.manual_seed(0)
    start, gradients = torch.randn(5), torch.randn(4, 5)
    weight = nn.Parameter(start.clone())
    optimizer = RMSProp([{"params": [weight], "weight_decay": 0.01}], 0.1, 0.9)
    expected, square, step = start.double(), torch.ones(5).double(), torch.zeros(5).double()
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        total = gradient.double() + 0.01 * expected
        square = 0.9 * square + 0.1 * total**2
        step = 0.9 * step + 0.1 * total / (square + 1.0).sqrt()
        expected = expected - step
    torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_it_agrees_with_another_implementation():
    timm = pytest.importorskip("timm.optim.rmsprop_tf", reason="timm's RMSpropTF is the peer")
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    one = RMSProp([{"params": list(ours.parameters()), "weight_decay": 0.0}], 0.05, 0.9)
    other = timm.RMSpropTF(theirs.parameters(), lr=0.05, alpha=0.9, eps=1.0, momentum=0.9)
    for _ in range(5):
        x = torch.randn(6, 4)
        for network, optimizer in ((ours, one), (theirs, other)):
            optimizer.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_a_parameter_without_a_gradient_stays():
    weight = nn.Parameter(torch.ones(3))
    RMSProp([{"params": [weight]}], 0.1, 0.9).step()
    assert torch.equal(weight.detach(), torch.ones(3))


def test_a_step_is_clipped_as_a_whole():
    free, clipped = make_step(momentum=0.0), make_step(momentum=0.0, clip_gradient=0.01)
    moves = []
    for step in (free, clipped):
        before = [p.detach().clone() for p in step.network.parameters()]
        step(make_batch(), 1.0)
        moves.append(
            torch.cat(
                [(a - b.detach()).flatten() for a, b in zip(before, step.network.parameters(), strict=True)]
            )
        )
    norm = moves[0].norm()
    assert norm > 0.01
    torch.testing.assert_close(moves[1], moves[0] * 0.01 / norm, rtol=1e-3, atol=1e-7)
    loose = make_step(momentum=0.0, clip_gradient=float(2 * norm))
    loose(make_batch(), 1.0)
    for ours, theirs in zip(loose.network.parameters(), free.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
