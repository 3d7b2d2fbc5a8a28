"""Where a file does not fit the network that was asked for, the network that it seems to be is named."""

import re

import pytest
import torch
import torchvision

from inception.errors import WeightsError
from inception.nets.registry import build_network
from inception.weights.formats.foreign import Foreign
from inception.weights.importer import import_weights
from inception.weights.likely import likely_network
from inception.weights.sources.choose import SOURCES

ASKED = "lenet5"


def meta(build, *arguments, **options):
    with torch.device("meta"):
        return build(*arguments, **options).state_dict()


def torchvisions(name, **options):
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return meta(getattr(torchvision.models, name), num_classes=7, **more, **options)


@pytest.mark.parametrize(
    "name, ours",
    [("googlenet", "googlenet_tv"), ("inception_v3", "inception_v3"), ("alexnet", "alexnet_tv")]
    + [(name, name) for name in SOURCES if name.startswith("vgg")],
)
@pytest.mark.parametrize("prefix", ["", "cnn."])
def test_torchvisions_networks(name, ours, prefix):
    tensors = {prefix + key: value for key, value in torchvisions(name).items()}
    said = likely_network(Foreign("torch", tensors), ASKED)
    assert said == f"; these look like torchvision's {ours}: --as {ours}"


@pytest.mark.parametrize("name", ["inception_v4", "inception_resnet_v2"])
def test_timms_networks(name):
    timm = pytest.importorskip("timm")
    tensors = meta(timm.create_model, name, num_classes=7)
    assert f"these look like timm's {name}:" in likely_network(Foreign("torch", tensors), ASKED)


@pytest.mark.parametrize("name", ["googlenet", "googlenet_bn", "inception_v2", "inception_resnet_v1", "nin"])
def test_our_own_networks(name):
    tensors = meta(build_network, name, num_classes=7)
    assert likely_network(Foreign("torch", tensors), ASKED) == f"; these look like our {name}: --as {name}"


@pytest.mark.parametrize(
    "name, known",
    [
        ("resnet18", "a ResNet"),
        ("densenet121", "a DenseNet"),
        ("efficientnet_b0", "an EfficientNet"),
        ("vit_b_16", "a vision transformer"),
        ("mobilenet_v2", "a MobileNet"),
        ("convnext_tiny", "a ConvNeXt"),
        ("shufflenet_v2_x0_5", "a ShuffleNet"),
        ("squeezenet1_1", "a SqueezeNet"),
    ],
)
def test_other_networks_are_named_too(name, known):
    said = likely_network(Foreign("torch", meta(getattr(torchvision.models, name))), ASKED)
    assert said == f"; these look like {known}, which is not among the networks here (`inception models`)"


def test_what_looks_like_nothing_or_like_what_was_asked_says_nothing():
    assert likely_network(Foreign("torch", {"a.weight": torch.zeros(3)}), ASKED) == ""
    assert likely_network(Foreign("torch", torchvisions("vgg11")), "vgg11") == ""


def test_the_import_says_it(tmp_path):
    torch.save(build_network("inception_small", num_classes=3).state_dict(), tmp_path / "w.pth")
    text = re.escape("these look like our inception_small: --as inception_small")
    with pytest.raises(WeightsError, match=f"does not fill lenet5: .*; {text}"):
        import_weights(tmp_path / "w.pth", ASKED)
