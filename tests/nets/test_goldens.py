"""Every network's logits on one image with weights from a formula, against stored numbers.

The weights come from no random generator, so the numbers mean the same with every version of torch; a change
of any of them is a change of a network. Written by `python tests/nets/test_goldens.py`.
"""

import json
from pathlib import Path

import pytest
import torch
from network_cases import MODELS, make

GOLDENS = Path(__file__).parent / "goldens.json"


def wave(shape: torch.Size, frequency: float) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return torch.sin(frequency * torch.arange(count, dtype=torch.float64)).reshape(shape).float()


def with_formula_weights(network):
    """Every parameter and statistic a sine of its own frequency, weights at the scale of He et al. 2015."""
    with torch.no_grad():
        for number, (name, tensor) in enumerate(network.state_dict().items()):
            if not tensor.is_floating_point():
                continue
            values = wave(tensor.shape, 0.7 + 0.013 * (number % 50))
            if tensor.dim() > 1:
                values *= 2 * tensor[0].numel() ** -0.5
            elif name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):
                values = 1 + 0.2 * values
            else:
                values *= 0.05
            tensor.copy_(values)
    return network


def measured(name: str) -> list[float]:
    network = with_formula_weights(make(name, num_classes=50)).eval()
    image = wave(torch.Size((1, 3, network.image_size, network.image_size)), 0.31)
    with torch.inference_mode():
        logits = network(image)[0]
    return [round(value, 6) for value in (logits / logits.abs().max()).tolist()[::7]]


def test_there_is_a_golden_for_every_network():
    assert sorted(json.loads(GOLDENS.read_text())) == MODELS


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_stored_ones(name):
    expected = json.loads(GOLDENS.read_text())[name]
    assert len(expected) == 8 and max(map(abs, expected)) > 0.01
    assert measured(name) == pytest.approx(expected, abs=1e-3)


if __name__ == "__main__":
    numbers = {name: measured(name) for name in MODELS}
    GOLDENS.write_text(json.dumps(numbers, indent=1) + "\n")
