"""`create_model` with a bundle's weights."""

import pytest
import torch

from inception.errors import UsageError
from inception.weights.pretrained import create_model

IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


def test_a_bundles_weights(tiny_bundle, tiny_path):
    model = create_model("googlenet_bn", pretrained=tiny_path)
    assert model.training
    with torch.no_grad():
        assert torch.equal(model.eval()(IMAGES), tiny_bundle.build()(IMAGES))


def test_another_number_of_classes_keeps_the_trunk(tiny_bundle, tiny_path):
    model = create_model("googlenet_bn", pretrained=str(tiny_path), num_classes=5).eval()
    with torch.no_grad():
        assert model(IMAGES).shape == (2, 5)
        assert torch.equal(model.forward_features(IMAGES), tiny_bundle.build().forward_features(IMAGES))
    assert create_model("googlenet_bn", pretrained=tiny_path, num_classes=0).eval()(IMAGES).dim() == 2


def test_features_only(tiny_path):
    model = create_model("googlenet_bn", pretrained=tiny_path, features_only=True, out_indices=(0, 1)).eval()
    assert [level.shape[1] for level in model(IMAGES)] == [info.num_chs for info in model.feature_info]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "googlenet"}, "holds a googlenet_bn, not a googlenet"),
        ({"width": 1.0}, "only num_classes can be changed"),
        ({"in_chans": 1}, "only num_classes can be changed"),
        ({"pretrained": True}, "takes the path of a bundle"),
        ({"pretrained": "nowhere"}, "there is no bundle"),
        ({"name": "googlnet_bn"}, "did you mean"),
    ],
)
def test_impossible_wishes(tiny_path, options, message):
    with pytest.raises(UsageError, match=message):
        create_model(**{"name": "googlenet_bn", "pretrained": tiny_path, **options})


def test_fresh_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = create_model("googlenet_bn", num_classes=3, width=0.05).state_dict()
    torch.manual_seed(1)
    second = create_model("googlenet_bn", num_classes=3, width=0.05).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
