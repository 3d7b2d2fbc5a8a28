"""Networks made without memory (`torch.device("meta")`) and filled later answer as those made with it."""

import pytest
import torch

import inception

SIDES = {"lenet5": 28, "inception_small": 32}


def side_of(name: str) -> int:
    if name in SIDES:
        return SIDES[name]
    return 75 if name.startswith(("inception_v3", "inception_v4", "inception_resnet")) else 64


def made(name: str) -> torch.nn.Module:
    """The network, a quarter as wide where its table allows that."""
    try:
        return inception.create_model(name, num_classes=4, width=0.25).eval()
    except (TypeError, ValueError):
        return inception.create_model(name, num_classes=4).eval()


@pytest.mark.parametrize("name", inception.list_models())
@pytest.mark.parametrize("way", ["assign", "to_empty"])
def test_a_network_from_the_meta_device_answers_the_same(name, way):
    torch.manual_seed(0)
    usual = made(name)
    with torch.device("meta"):
        filled = made(name)
    if way == "assign":
        filled.load_state_dict(usual.state_dict(), assign=True)
    else:
        filled.to_empty(device="cpu")
        filled.load_state_dict(usual.state_dict())
    side = max(side_of(name), usual.min_size) if hasattr(usual, "min_size") else side_of(name)
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(filled(images), usual(images), rtol=0, atol=0)
