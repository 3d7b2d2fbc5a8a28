"""Every rewrite is the same function: random weights, random statistics, float64."""

import pytest
import torch
from torch import nn

from inception.data.preprocess import Preprocess
from inception.nets.layers import AvgPool, ConvBlock, LocalResponseNorm
from inception.nets.registry import build_network
from inception.runtime import rewrites

# Everything the rewrites treat differently: nested names, forks, average pools, residual sums, paddings.
CASES = {
    "googlenet": {"width": 0.1},
    "googlenet_5h": {"width": 0.1},
    "googlenet_tv": {"width": 0.1, "batch_norm_scale": False},
    "inception_v3": {"width": 0.1},
    "inception_v4": {"width": 0.1},
    "inception_resnet_v2": {"width": 0.1},
    "inception_v2_caffe": {"width": 0.1},
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    torch.manual_seed(3)
    network = build_network(
        request.param, num_classes=5, stem="small", aux_logits=False, **CASES[request.param]
    )
    return randomised(network), torch.randn(2, 3, 32, 32, dtype=torch.float64)


def randomised(network):
    """Statistics as after training: nothing is 0 or 1."""
    generator = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.running_var, 0.5), (module.weight, 0.5), (module.running_mean, -0.5)):
                if tensor is not None:
                    tensor.data.uniform_(low, low + 1, generator=generator)
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
    network.fc.weight.data.normal_(std=1.0, generator=generator)
    return network.double().eval()


def assert_same_function(before, after, x):
    with torch.no_grad():
        expected, found = before(x), after(x)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_batch_norm_folds(case):
    network, x = case
    folded = rewrites.fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert_same_function(network, folded, x)


def test_average_pools_swap(case):
    network, x = case
    folded = rewrites.fold_batch_norm(network)
    swapped = rewrites.swap_average_pools(folded)
    pools = [module for module in folded.modules() if isinstance(module, AvgPool)]
    made = [module for module in swapped.modules() if isinstance(module, rewrites.PooledProjection)]
    assert len(made) == len([pool for pool in pools if pool.stride == 1])
    assert_same_function(folded, swapped, x)


@pytest.mark.parametrize("counted", [False, True])
def test_average_pool_swap_at_the_border(counted):
    torch.manual_seed(0)
    network = build_network(
        "inception_v3", num_classes=5, width=0.1, stem="small", aux_logits=False, count_include_pad=counted
    )
    folded = rewrites.fold_batch_norm(randomised(network))
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    assert_same_function(folded, rewrites.swap_average_pools(folded), x)


def test_siblings_merge(case):
    network, x = case
    folded = rewrites.fold_batch_norm(network)
    merged = rewrites.merge_siblings(folded)
    assert any(isinstance(module, rewrites.MergedConcat) for module in merged.modules())
    assert_same_function(folded, merged, x)
    assert_same_function(folded, rewrites.merge_siblings(rewrites.swap_average_pools(folded)), x)


def test_residual_scales_fold():
    torch.manual_seed(0)
    network = randomised(build_network("inception_resnet_v2", num_classes=5, width=0.1, stem="small"))
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    assert_same_function(network, rewrites.fold_residual_scale(network), x)


@pytest.mark.parametrize(
    ("name", "options", "padded"),
    [
        ("googlenet", {}, True),
        ("googlenet_5h", {"padding": "same"}, True),
        ("inception_v3", {}, False),
        ("inception_v4", {}, False),
    ],
)
def test_normalisation_folds_into_the_first_convolution(name, options, padded):
    torch.manual_seed(1)
    network = randomised(build_network(name, num_classes=5, width=0.1, aux_logits=False, **options))
    network = rewrites.fold_batch_norm(network)
    preprocess = Preprocess(mean=(0.4, 0.5, 0.3), std=(0.2, 0.25, 0.3))
    pixels = torch.randint(0, 256, (1, 3, 99, 99), dtype=torch.uint8)
    folded = rewrites.fold_normalization(network, preprocess)
    assert (folded.center is not None) == padded
    shape = (1, 3, 1, 1)
    mean, std = (
        torch.tensor(values, dtype=torch.float64).view(shape) for values in (preprocess.mean, preprocess.std)
    )
    exact = (pixels.double() / 255.0 - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(folded(pixels), network(exact), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("googlenet", {}, (64, 67)),
        ("googlenet_5h", {"padding": "same"}, (64, 64)),
        ("googlenet_5h", {"padding": "same"}, (65, 70)),
        ("inception_v3", {}, (99, 100)),
        ("inception_v4", {}, (99, 99)),
    ],
)
def test_first_convolution_reads_blocks(name, options, size):
    torch.manual_seed(1)
    network = randomised(build_network(name, num_classes=5, width=0.1, aux_logits=False, **options))
    folded = rewrites.fold_normalization(rewrites.fold_batch_norm(network), Preprocess())
    blocked = rewrites.space_to_depth(folded, size)
    assert any(isinstance(module, rewrites.SpaceToDepthConv) for module in blocked.modules())
    assert_same_function(folded, blocked, torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))


def test_a_first_convolution_of_stride_1_stays():
    network = randomised(build_network("googlenet", num_classes=5, width=0.1, stem="small", aux_logits=False))
    folded = rewrites.fold_normalization(network, Preprocess(height=32, width=32))
    same = rewrites.space_to_depth(folded, (32, 32))
    assert not any(isinstance(module, rewrites.SpaceToDepthConv) for module in same.modules())


def test_a_network_that_does_not_begin_with_one_folded_convolution_is_refused():
    network = build_network("googlenet_bn", num_classes=5, width=0.1)
    with pytest.raises(ValueError, match="begin with one convolution"):
        rewrites.fold_normalization(network, Preprocess())


@pytest.mark.parametrize(("size", "alpha", "beta", "k"), [(5, 1e-4, 0.75, 1.0), (11, 0.0011, 0.5, 2.0)])
def test_response_norm_is_a_banded_convolution(size, alpha, beta, k):
    torch.manual_seed(2)
    ours = LocalResponseNorm(32, size, alpha, beta, k).double()
    # The band is built in float32; its numbers must be float64's for an exact comparison.
    ours.band = torch.where(ours.band > 0, torch.tensor(alpha / size, dtype=torch.float64), 0.0)
    x = 30 * torch.randn(2, 32, 7, 7, dtype=torch.float64)
    theirs = nn.LocalResponseNorm(size, alpha, beta, k)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


def test_rewrites_leave_the_original_alone():
    network = randomised(build_network("inception_v3", num_classes=5, width=0.1, stem="small"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = rewrites.fold_batch_norm(network)
    names = list(folded.state_dict())
    rewrites.merge_siblings(rewrites.swap_average_pools(rewrites.fold_residual_scale(folded)))
    assert list(folded.state_dict()) == names
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert isinstance(next(m for m in network.modules() if isinstance(m, ConvBlock)).bn, nn.BatchNorm2d)
