"""What the peers' own tests ask of these networks and `test_model_contract.py` does not already."""

import pytest
import torch
from network_cases import every_model, images, make, on_meta, without_dropout
from torch import nn

from inception.errors import UsageError
from inception.nets.complexity import endpoint_shapes
from inception.nets.registry import build_model, build_network

FAMILY = ["inception_v2", "inception_v3", "inception_v4", "inception_resnet_v2"]


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("googlenet_5h", (112, 112), (1024, 4, 4)),
        ("inception_v2", (112, 112), (1024, 4, 4)),
        ("inception_v3", (150, 150), (2048, 3, 3)),
        ("inception_v4", (150, 150), (1536, 3, 3)),
        ("inception_resnet_v2", (150, 150), (1536, 3, 3)),
        ("googlenet_5h", (250, 300), (1024, 8, 10)),
        ("inception_v3", (350, 400), (2048, 9, 11)),
        ("inception_v4", (350, 400), (1536, 9, 11)),
        ("inception_resnet_v2", (400, 600), (1536, 11, 17)),
        ("inception_v3", (299, 299), (2048, 8, 8)),
        ("inception_v4", (299, 299), (1536, 8, 8)),
        ("inception_resnet_v2", (299, 299), (1536, 8, 8)),
    ],
    ids=str,
)
def test_last_maps(name, size, expected):
    """Half-size, odd and own sizes, as TF-slim's and timm's tests have them."""
    network = on_meta(name)
    assert endpoint_shapes(network, size)[network.endpoints[-1]] == expected


@pytest.mark.parametrize(
    ("name", "channels", "sides"),
    [
        ("inception_v3", (64, 192, 288, 768, 2048), (147, 71, 35, 17, 8)),
        ("inception_v4", (64, 160, 384, 1024, 1536), (147, 73, 35, 17, 8)),
        ("inception_resnet_v2", (64, 192, 320, 1088, 1536), (147, 71, 35, 17, 8)),
    ],
)
def test_feature_pyramids_are_timms(name, channels, sides):
    with torch.device("meta"):
        pyramid = build_model(name, features_only=True).eval()
    maps = pyramid(torch.zeros(1, 3, 299, 299, device="meta"))
    assert [info.reduction for info in pyramid.feature_info] == [2, 4, 8, 16, 32]
    assert [info.num_chs for info in pyramid.feature_info] == list(channels)
    assert [tuple(feature.shape[1:]) for feature in maps] == [
        (channel, side, side) for channel, side in zip(channels, sides, strict=True)
    ]


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("width", [0.5, 2.0])
def test_width_scales_every_endpoint(name, width):
    """TF-slim's depth_multiplier: half or twice the channels at every endpoint."""
    size = on_meta(name).min_size + 32
    plain = endpoint_shapes(on_meta(name), size)
    scaled = endpoint_shapes(on_meta(name, width=width), size)
    assert {stage: int(shape[0] * width) for stage, shape in plain.items()} == {
        stage: shape[0] for stage, shape in scaled.items()
    }


@pytest.mark.parametrize("width", [0.0, -0.1])
@pytest.mark.parametrize("name", FAMILY)
def test_impossible_widths(name, width):
    with pytest.raises(UsageError, match="width must be positive"):
        build_network(name, width=width)


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v2"])
def test_auxiliary_logits(name):
    network = make(name, num_classes=10)
    output = network.train()(torch.randn(2, 3, 107, 107))
    assert [tuple(part.shape) for part in output.aux] == [(2, 10)]
    without = make(name, num_classes=10, aux_logits=False)
    assert without.train()(torch.randn(2, 3, 107, 107)).aux == ()
    assert not [key for key in without.state_dict() if "aux" in key]


def test_auxiliary_windows_are_torchvisions_from_299():
    """From there the 5x5 windows at stride 3 fill the 5x5 convolution; below they are adaptive."""
    network = on_meta("inception_v3")
    for size, expected in ((267, 15), (299, 17), (320, 18)):
        assert endpoint_shapes(network, size)["Mixed_6e"][1] == expected
    small = make("inception_v3").train()
    assert small(torch.randn(2, 3, 96, 96)).aux[0].isfinite().all()


@pytest.mark.parametrize("name", ["lenet5", "nin", "alexnet", "vgg11", "inception_v2", "inception_resnet_v1"])
def test_networks_without_auxiliary_heads_say_so(name):
    assert on_meta(name).aux_taps == {}
    with pytest.raises(UsageError, match=f"{name} cannot be built: it has no auxiliary heads"):
        build_network(name, aux=True)


def test_paddings_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="padding must be one of floor, same, not 'ceil'"):
        build_network("inception_v4", padding="ceil")
    with pytest.raises(UsageError, match="output_stride must be 16 or 8, not 4"):
        build_network("inception_resnet_v2", output_stride=4)
    with pytest.raises(UsageError, match="does not take these arguments"):
        build_network("inception_v3", separable=True)


def test_nothing_after_output_stride_8():
    network = on_meta("inception_resnet_v2", output_stride=8, aux_logits=False)
    assert network.endpoints[-1] == "PreAuxLogits"
    with pytest.raises(UsageError, match="no stage is called 'Mixed_7a'"):
        network.eval()(torch.zeros(1, 3, 299, 299, device="meta"), return_endpoints=["Mixed_7a"])


@pytest.mark.parametrize("name", ["googlenet", "googlenet_tv"])
def test_modules_without_the_stem(name):
    """TF-slim's include_root_block=False: the modules alone on a map of 192 x 28 x 28."""
    network = on_meta(name, aux_logits=False)
    x = torch.zeros(5, 192, 28, 28, device="meta")
    shapes = endpoint_shapes(network, 224)
    for stage in network.endpoints[network.endpoints.index("inception3a") :]:
        x = getattr(network.eval(), stage)(x)
        assert x.shape[1:] == shapes[stage]


@every_model
def test_predictions_of_a_batch(name):
    network = make(name, num_classes=50).eval()
    x = images(network).requires_grad_()
    logits = network(x)
    assert logits.shape == (2, 50)
    assert logits.argmax(1).shape == (2,)
    torch.testing.assert_close(logits.softmax(1).sum(1), torch.ones(2))
    logits.square().sum().backward()
    assert x.grad.any()


@every_model
def test_training_then_evaluation_at_another_size(name):
    network = make(name).train()
    side = network.min_size + 32
    network(torch.randn(2, 3, side, side))
    with torch.no_grad():
        assert network.eval()(torch.randn(3, 3, side + 21, side + 9)).shape == (3, 10)


@every_model
def test_stages_are_run_in_the_order_of_their_names(name):
    """Cutting the network at each endpoint gives the prefix of its endpoints, and the same maps."""
    network = make(name).eval()
    x = images(network, batch=1)
    with torch.no_grad():
        every = network(x, return_endpoints=network.endpoints)
        for stage in network.endpoints:
            x = getattr(network, stage)(x)
            torch.testing.assert_close(x, every[stage], rtol=1e-5, atol=1e-5)
    assert [stage for stage, _ in network.named_children() if stage in network.endpoints] == list(
        network.endpoints
    )


@every_model
def test_replacing_the_last_layer(name):
    network = without_dropout(make(name)).eval()
    network.reset_classifier(7)
    x = images(network, batch=1)
    with torch.no_grad():
        assert network(x).shape == (1, 7)
        torch.testing.assert_close(network.forward_head(network.forward_features(x)), network(x))


def test_batch_norm_has_a_scale_everywhere():
    """deviation of TF-slim's default (no gamma): every peer in PyTorch has it."""
    for name in FAMILY:
        network = on_meta(name)
        assert all(m.weight is not None for m in network.modules() if isinstance(m, nn.BatchNorm2d))


def test_hidden_heads_take_any_size_but_change_nothing_at_their_own():
    network = make("vgg11").eval()
    features = torch.randn(1, network.forward_features(images(network, 1)).shape[1], 7, 7)
    with torch.no_grad():
        flat = torch.flatten(features, 1)
        hidden = nn.functional.relu(network.head.linear2(nn.functional.relu(network.head.linear1(flat))))
        torch.testing.assert_close(network.forward_head(features, pre_logits=True), hidden)
