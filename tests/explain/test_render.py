"""Feature visualisation: what is drawn excites its target, and drawing leaves no trace."""

import math

import pytest
import torch
import torch.nn.functional as F
from explain_support import hooks, make_network

from inception.data.preprocess import Preprocess
from inception.errors import UsageError
from inception.explain.canvas import Canvas, colour_matrix, frequency_scale
from inception.explain.layers import activations, borrowed
from inception.explain.objectives import Objective, channel
from inception.explain.redirect import RedirectedRelu
from inception.explain.render import Settings, render, to_input
from inception.explain.robust import NONE, Robustness, moved

QUICK = Settings(steps=8, precision="float32")
TARGET = channel("mixed4a", 3)


def excitement(network, preprocess, pixels, objective=TARGET):
    with borrowed(network), torch.no_grad():
        return objective.value(activations(network, to_input(pixels, preprocess), objective.layers))


def test_the_picture_excites_its_channel(network, preprocess):
    settings = Settings(steps=48, precision="float32")
    picture = render(network, preprocess, TARGET, settings)
    assert picture.shape == (1, 3, 32, 32)
    assert float(picture.min()) >= 0
    assert float(picture.max()) <= 1
    start = Canvas([0], 3, 32, 32).pixels().detach()
    assert excitement(network, preprocess, picture) > 3 * excitement(network, preprocess, start).clamp(
        min=0.01
    )


def test_one_seed_one_picture(network, preprocess):
    first, second = (render(network, preprocess, TARGET, QUICK) for _ in range(2))
    assert torch.equal(first, second)
    other = render(network, preprocess, TARGET, Settings(steps=8, precision="float32", seed=1))
    assert not torch.equal(first, other)


def test_a_picture_starts_from_the_same_noise_whatever_its_neighbours():
    alone, both = Canvas([6], 3, 8, 8).pixels(), Canvas([5, 6], 3, 8, 8).pixels()
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both[0], both[1])


def test_bfloat16_draws_the_same_kind_of_picture(network, preprocess):
    settings = {"steps": 32, "robustness": NONE}
    exact = render(network, preprocess, TARGET, Settings(precision="float32", **settings))
    quick = render(network, preprocess, TARGET, Settings(precision="bfloat16", **settings))
    high, low = (float(excitement(network, preprocess, picture)) for picture in (exact, quick))
    assert low > 0.8 * high
    assert next(network.parameters()).dtype == torch.float32


@pytest.mark.parametrize("color", ["BGR", "L"])
def test_other_colour_orders(color):
    grey = color == "L"
    network = make_network(in_chans=1 if grey else 3)
    statistics = {"mean": (0.5,), "std": (0.5,)} if grey else {}
    preprocess = Preprocess(32, 32, color=color, **statistics)
    picture = render(network, preprocess, TARGET, QUICK)
    assert picture.shape == (1, 3, 32, 32)
    if grey:
        assert torch.equal(picture[:, 0], picture[:, 2])
    else:
        pixels = torch.rand(1, 3, 4, 4)
        expected = preprocess.normalize((pixels * 255).flip(1))
        torch.testing.assert_close(to_input(pixels, preprocess), expected)


def test_a_network_of_fixed_size_and_a_small_one():
    network = make_network(head="fully_connected", image_size=32)
    settings = Settings(steps=2, size=64, precision="float32")
    assert render(network, Preprocess(32, 32), channel("logits", 1), settings).shape[2:] == (32, 32)
    large = make_network("googlenet", stem="large", aux_logits=False)
    with pytest.raises(UsageError, match="at least 31 pixels"):
        render(large, Preprocess(224, 224), TARGET, Settings(size=16))


def test_nothing_is_left_behind_even_after_an_exception(network, preprocess):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def broken(_):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        render(network, preprocess, Objective("broken", frozenset(("mixed4a",)), broken), QUICK)
    assert network.training
    assert hooks(network) == 0
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    F.relu(x).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0]


def test_the_redirected_gradient():
    """Rows: a dead map (all negative) lets gradients up through; a living one is an ordinary ReLU."""
    x = torch.tensor([[-1.0, -2.0], [3.0, -4.0]], requires_grad=True)
    weights = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    with RedirectedRelu():
        output = F.relu(x)
        (output * weights).sum().backward()
    assert output.tolist() == [[0.0, 0.0], [3.0, 0.0]]
    assert x.grad.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_a_dead_channel_is_brought_to_life_by_it(preprocess, monkeypatch):
    network = make_network()
    with torch.no_grad():
        network.inception4a.b1x1.bn.weight[3] = 0.3
        network.inception4a.b1x1.bn.bias[3] = -0.5
    start = Canvas([0], 3, 32, 32).pixels().detach()
    assert float(excitement(network, preprocess, start)) == 0
    settings = Settings(steps=40, precision="float32")
    alive = render(network, preprocess, TARGET, settings)
    monkeypatch.setattr("inception.explain.render.REDIRECTED_STEPS", 0)
    dead = render(network, preprocess, TARGET, settings)
    assert float(excitement(network, preprocess, dead)) == 0
    assert float(excitement(network, preprocess, alive)) > 0


def test_the_canvas_is_lucids_formula():
    canvas = Canvas([4], 3, 8, 6)
    spectrum = torch.view_as_complex(canvas.own.detach())
    # Every frequency written out: rows of the discrete Fourier transform, not the library's inverse.
    frequency = torch.tensor(
        [[max(math.hypot(min(r, 8 - r) / 8, c / 6), 1 / 8) for c in range(4)] for r in range(8)]
    )
    torch.testing.assert_close(frequency_scale(8, 6), math.sqrt(48) / frequency)
    values = torch.fft.irfft2(spectrum * math.sqrt(48) / frequency, s=(8, 6)) / 4
    matrix = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
    matrix = matrix / max(float(column.norm()) for column in matrix.T)
    torch.testing.assert_close(colour_matrix(), matrix)
    expected = torch.sigmoid((values.permute(0, 2, 3, 1) @ matrix.T).permute(0, 3, 1, 2))
    torch.testing.assert_close(canvas.pixels().detach(), expected)
    assert len(Canvas([1, 2], 3, 8, 8, shared=True).parameters) == 2


def test_movements():
    images = torch.rand(2, 3, 16, 16)
    generator = torch.Generator().manual_seed(0)
    assert moved(images, NONE, generator, False) is images
    still = Robustness(pad=0.25, jitter=0.0, scale=0.0, degrees=0.0)
    padded = moved(images, still, generator, False)
    assert padded.shape == (2, 3, 24, 24)
    torch.testing.assert_close(padded[:, :, 4:20, 4:20], images)
    assert (padded[:, :, 0] == 0.5).all()
    assert moved(images, Robustness(), generator, True).shape == images.shape
    first, second = (moved(images, Robustness(), torch.Generator().manual_seed(7), False) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, moved(images, Robustness(), torch.Generator().manual_seed(8), False))
