"""Networks applied everywhere on a larger image."""

import pytest
import torch

from inception.nets.dense import dense_logits
from inception.nets.registry import build_network, list_models

SMALL = {"width": 0.125, "num_classes": 25}


@pytest.mark.parametrize("name", list_models())
def test_own_size_gives_the_ordinary_logits(name):
    torch.manual_seed(0)
    network = build_network(name, **SMALL).eval()
    images = torch.randn(1, 3, network.image_size, network.image_size)
    with torch.inference_mode():
        dense, logits = dense_logits(network, images), network(images)
    assert dense.shape == (1, 25, 1, 1)
    torch.testing.assert_close(dense[:, :, 0, 0], logits, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "places"),
    [
        # TF-slim's vgg_test; the others follow from the maps' sizes less the window, plus 1.
        ("vgg16", (256, 256), (2, 2)),
        ("googlenet", (256, 320), (2, 4)),
        ("alexnet", (300, 400), (4, 7)),
        ("inception_v3", (363, 299), (3, 1)),
    ],
)
def test_larger_images_give_a_map_of_logits(name, size, places):
    network = build_network(name, **SMALL).eval()
    with torch.inference_mode():
        assert dense_logits(network, torch.randn(1, 3, *size)).shape[2:] == places


@pytest.mark.parametrize("name", ["googlenet_bn", "vgg11", "nin", "lenet5"])
def test_each_place_is_the_head_on_its_window(name):
    torch.manual_seed(0)
    network = build_network(name, **SMALL).eval()
    side = network.image_size
    images = torch.randn(1, 3, side + 64, side + 32)
    with torch.inference_mode():
        maps = network.forward_features(images)
        dense = dense_logits(network, images)
        window = maps.shape[2] - dense.shape[2] + 1
        for row in range(dense.shape[2]):
            for column in range(dense.shape[3]):
                part = maps[:, :, row : row + window, column : column + window]
                expected = network.forward_head(part)
                torch.testing.assert_close(dense[:, :, row, column], expected, rtol=1e-4, atol=1e-5)


def test_fully_connected_ablation():
    network = build_network("googlenet", head="fully_connected", **SMALL).eval()
    with torch.inference_mode():
        assert dense_logits(network, torch.randn(1, 3, 256, 224)).shape == (1, 25, 2, 1)


def test_what_cannot_be_dense_is_refused():
    network = build_network("googlenet", **SMALL)
    with pytest.raises(ValueError, match="evaluation mode"):
        dense_logits(network, torch.randn(1, 3, 224, 224))
    with pytest.raises(ValueError, match="less than a window of 7 x 7"):
        dense_logits(network.eval(), torch.randn(1, 3, 192, 224))
    network.reset_classifier(0, "")
    with pytest.raises(ValueError, match="pool"):
        dense_logits(network, torch.randn(1, 3, 224, 224))
