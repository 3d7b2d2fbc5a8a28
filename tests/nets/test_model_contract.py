"""What every network promises its users (timm's and torchvision's habits), for each of `list_models()`."""

import copy
import inspect
import io
import math
import pickle

import pytest
import torch
from network_cases import CLASSES, MODELS, every_model, images, make, narrow, on_meta
from torch import nn

from inception.errors import UsageError
from inception.nets.complexity import profile
from inception.nets.output import Output
from inception.nets.registry import ALIASES, build_model, build_network, canonical_name, list_models


@every_model
@pytest.mark.parametrize("size", [(64, 64), (71, 96)], ids=str)
def test_evaluation_gives_finite_logits_at_any_size(name, size):
    network = make(name).eval()
    size = tuple(max(side, network.min_size) for side in size)
    with torch.no_grad():
        logits = network(torch.randn(2, 3, *size))
    assert logits.shape == (2, CLASSES)
    assert logits.isfinite().all()
    assert logits.std() > 0


@every_model
def test_head_on_features_is_the_forward_pass(name):
    network = make(name).eval()
    x = images(network)
    with torch.no_grad():
        features = network.forward_features(x)
        pooled = network.forward_head(features, pre_logits=True)
        assert features.dim() == 4
        assert pooled.shape == (2, network.num_features)
        assert torch.equal(network.forward_head(features), network(x))
        if name != "nin":  # its classifier reads the map
            assert torch.equal(network.get_classifier()(pooled), network(x))


def auxiliary_shapes(network, x) -> set[tuple[int, ...]]:
    """Shapes of the auxiliary outputs, from a copy: a training step moves batch-norm statistics."""
    return {tuple(part.shape) for part in copy.deepcopy(network).train()(x).aux}


@every_model
def test_reset_classifier(name):
    network = make(name).eval()
    x = images(network)
    with torch.no_grad():
        features = network.forward_features(x)
        pooled = network.forward_head(features, pre_logits=True)
        network.reset_classifier(4)
        assert network.num_classes == 4
        assert network(x).shape == (2, 4)
        assert auxiliary_shapes(network, x) <= {(2, 4)}
        network.reset_classifier(0)
        assert torch.equal(network(x), pooled)
        network.reset_classifier(0, "")
        assert torch.equal(network(x), features)
        network.reset_classifier(6, "avg")
        assert network(x).shape == (2, 6)
        assert auxiliary_shapes(network, x) <= {(2, 6)}


@every_model
@pytest.mark.filterwarnings("error")
def test_built_without_a_classifier(name):
    pooled = make(name, num_classes=0).eval()
    x = images(pooled)
    with torch.no_grad():
        assert pooled(x).shape == (2, pooled.num_features)
        mapped = make(name, num_classes=0, global_pool="").eval()
        assert mapped(x).shape == mapped.forward_features(x).shape
    pooled.reset_classifier(3)
    assert pooled(x).shape == (2, 3)


@every_model
def test_reset_classifier_keeps_the_dtype(name):
    network = make(name).double().eval()
    network.reset_classifier(3)
    assert network(images(network).double()).dtype == torch.float64


@every_model
def test_architecture_and_arguments_rebuild_it(name):
    network = make(name, in_chans=1, dropout=0.1)
    network.remove_auxiliary_heads()
    network.reset_classifier(3)
    again = build_network(network.architecture, num_classes=network.num_classes, **network.arguments)
    again.load_state_dict(network.state_dict(), strict=True)
    x = images(network)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), network.eval()(x))


@every_model
@pytest.mark.parametrize("in_chans", [1, 4])
def test_input_channels(name, in_chans):
    network = make(name, in_chans=in_chans).eval()
    assert network(images(network)).shape == (2, CLASSES)
    with pytest.raises(ValueError, match=rf"expected images as N x {in_chans} x H x W, got 2 x 3 x 64 x 64"):
        network(torch.randn(2, 3, 64, 64))


@every_model
def test_wrong_rank_is_named(name):
    with pytest.raises(ValueError, match=r"expected images as N x 3 x H x W, got 3 x 64 x 64"):
        make(name).eval()(torch.randn(3, 64, 64))


@every_model
@pytest.mark.parametrize("stem", ["large", "small"])
def test_smallest_image(name, stem):
    network = make(name, stem=stem).eval()
    side = network.min_size
    with torch.no_grad():
        assert network(torch.randn(1, 3, side, side)).isfinite().all()
        assert {part.shape for part in network.train()(torch.randn(2, 3, side + 32, side + 32)).aux} <= {
            (2, CLASSES)
        }
    if side > 1:
        for size in ((side - 1, side), (side, side - 1)):
            with pytest.raises(
                ValueError, match=f"images of at least {side} x {side} pixels, got {size[0]} x"
            ):
                network.eval()(torch.randn(1, 3, *size))
        # The limit is the true one: without the check, torch itself gives up one pixel below.
        network.min_size = 1
        with pytest.raises(RuntimeError):
            network(torch.randn(1, 3, side - 1, side - 1))


@every_model
def test_feature_pyramid(name):
    network = make(name).eval()
    pyramid = build_model(name, features_only=True, num_classes=CLASSES, **narrow(name)).eval()
    x = images(network, side=96)
    with torch.no_grad():
        maps = pyramid(x)
    reductions = [info.reduction for info in pyramid.feature_info]
    assert len(maps) == len(reductions) == len(network.feature_info)
    assert reductions == sorted(set(reductions))
    for feature_map, info in zip(maps, pyramid.feature_info, strict=True):
        assert feature_map.shape[:2] == (2, info.num_chs)
        for side, full in zip(feature_map.shape[2:], x.shape[2:], strict=True):
            assert side <= math.ceil(full / info.reduction) + 1
            assert side >= full // info.reduction - 4  # unpadded convolutions cost pixels
        assert info.module in network.endpoints
    assert not [key for key in pyramid.state_dict() if "aux" in key or ".fc." in key or "linear" in key]


@pytest.mark.parametrize("indices", [(9,), (1, 1), (-6,)])
def test_levels_that_are_none_are_refused(indices):
    with pytest.raises(UsageError, match="out_indices must be different ones of 0 to 4"):
        build_model("googlenet", features_only=True, out_indices=indices, width=0.25)


@every_model
def test_feature_pyramid_levels_can_be_chosen(name):
    full = build_model(name, features_only=True, **narrow(name)).eval()
    some = build_model(name, features_only=True, out_indices=(0, -1), **narrow(name)).eval()
    some.load_state_dict(full.state_dict())
    x = images(full.network)
    with torch.no_grad():
        first, last = some(x)
        maps = full(x)
    assert torch.equal(first, maps[0])
    assert torch.equal(last, maps[-1])
    assert some.feature_info == (full.feature_info[0], full.feature_info[-1])


def test_googlenet_pyramid():
    pyramid = build_model("googlenet", features_only=True).eval()
    assert [(info.module, info.num_chs, info.reduction) for info in pyramid.feature_info] == [
        ("conv1", 64, 2),
        ("conv3" if "norm2" not in pyramid.network.endpoints else "norm2", 192, 4),
        ("inception3b", 480, 8),
        ("inception4e", 832, 16),
        ("inception5b", 1024, 32),
    ]


@every_model
def test_endpoints_and_their_aliases(name):
    network = make(name).eval()
    x = images(network)
    with torch.no_grad():
        maps = network(x, return_endpoints=network.endpoints)
        assert list(maps) == list(network.endpoints)
        assert torch.equal(maps[network.endpoints[-1]], network.forward_features(x))
        aliases = {a: stage for a, stage in network.aliases.items() if stage in network.endpoints}
        found = network(x, return_endpoints=[*aliases, network.endpoints[0]])
    assert list(found) == [*aliases, network.endpoints[0]]
    for alias, stage in aliases.items():
        assert torch.equal(found[alias], maps[stage])


@pytest.mark.parametrize(
    ("alias", "stage"),
    [
        ("mixed4a", "inception4a"),
        ("Mixed_4b", "inception4a"),
        ("Mixed_5c", "inception5b"),
        ("inception_4a/output", "inception4a"),
        ("conv2/3x3", "conv3"),
        ("Conv2d_2c_3x3", "conv3"),
        ("conv2d2", "conv3"),
        ("pool3/3x3_s2", "maxpool3"),
    ],
)
def test_names_other_tools_use(alias, stage):
    assert make("googlenet").aliases[alias] == stage


@pytest.mark.parametrize(("asked", "suggested"), [("inception4f", "inception4"), ("mixed_4a", "mixed4a")])
def test_unknown_endpoint_suggests_near_ones(asked, suggested):
    network = make("googlenet").eval()
    with pytest.raises(UsageError, match=f"no stage is called '{asked}': did you mean .*{suggested}"):
        network(images(network), return_endpoints=[asked])


@every_model
def test_asking_for_an_early_endpoint_runs_no_later_stage(name):
    network = make(name).eval()
    ran = []
    for stage in network.endpoints:
        getattr(network, stage).register_forward_hook(lambda *_, stage=stage: ran.append(stage))
    network(images(network), return_endpoints=[network.endpoints[2], network.endpoints[0]])
    assert ran == list(network.endpoints[:3])


@every_model
def test_every_parameter_gets_a_gradient(name):
    network = make(name).train()
    output = network(images(network))
    assert isinstance(output, Output)
    sum(part.square().mean() for part in (output.logits, *output.aux)).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    dead = [key for key, parameter in network.named_parameters() if not parameter.grad.any()]
    assert not dead


@every_model
def test_copies_and_files(name):
    network = make(name).eval()
    x = images(network)
    stream = io.BytesIO()
    torch.save(network.state_dict(), stream)
    stream.seek(0)
    fresh = make(name).eval()
    fresh.load_state_dict(torch.load(stream, weights_only=True), strict=True)
    with torch.no_grad():
        expected = network(x)
        for twin in (fresh, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(twin(x), expected)


@every_model
@pytest.mark.parametrize("width", [0.5, 2.0])
def test_width_multiplies_every_endpoint(name, width):
    def depths(width: float) -> list[int]:
        network = on_meta(name, aux=False, width=width)
        return [out for _, out in sorted(convolution_depths(network).items())]

    for plain, scaled in zip(depths(1.0), depths(width), strict=True):
        assert scaled == max(int(plain * width), min(plain, 16))


def convolution_depths(network) -> dict[str, int]:
    return {
        path: module.out_channels
        for path, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and not path.startswith("fc.")
    }


@every_model
def test_profile_counts_every_parameter(name):
    network = on_meta(name)
    assert sum(cost.parameters for cost in profile(network, network.min_size + 60)) == sum(
        p.numel() for p in network.parameters()
    )


@every_model
def test_fresh_weights_keep_the_signal(name):
    """He initialisation: 22 layers deep, activations neither vanish nor explode."""
    network = make(name).train()
    x = images(network, batch=4)
    with torch.no_grad():
        features = network.forward_features(x)
    assert 1e-3 < features.std() < 1e3


def test_fresh_weights_follow_the_seed():
    torch.manual_seed(3)
    first = make("googlenet").state_dict()
    torch.manual_seed(3)
    second = make("googlenet").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_names_of_models():
    assert list_models("googlenet*") == [name for name in MODELS if name.startswith("googlenet")]
    assert {"googlenet", "googlenet_5h", "googlenet_bn", "googlenet_tv"} <= set(MODELS)
    assert all(canonical_name(alias) == name for alias, name in ALIASES.items())
    with pytest.raises(UsageError, match="no model is called 'gogglenet': did you mean googlenet"):
        build_network("gogglenet")


def test_public_signatures():
    network = make("googlenet")
    assert list(inspect.signature(network.forward_head).parameters) == ["x", "pre_logits"]
    assert list(inspect.signature(network.reset_classifier).parameters) == ["num_classes", "global_pool"]
