"""Networks whose layers train with the kernels against the same networks in plain PyTorch."""

import copy

import pytest
import torch
from torch import nn

from inception.nets.layers import Concat, ConvBlock, MaxPool
from inception.nets.registry import build_network
from inception.train.distributed import SharedBatchNorm, share_batch_norm
from inception.train.layers import set_training_mode
from inception.train.native.fused import FusedConcat, FusedConvBlock, FusedMaxPool, fuse
from inception.train.native.library import reason_without

pytestmark = pytest.mark.skipif(bool(reason_without()), reason=f"no kernels here: {reason_without()}")
NETWORKS = {
    "googlenet_bn": {"width": 0.1},
    "googlenet_tv": {"width": 0.1},
    "inception_small": {},
    "inception_v3": {"width": 0.1},
    "inception_v4": {"width": 0.05},
    "inception_resnet_v2": {"width": 0.05},
    "googlenet": {"width": 0.1},
}
SIDES = {"inception_small": 32, "googlenet_bn": 64, "googlenet_tv": 64, "googlenet": 64}


def pair(name):
    torch.manual_seed(0)
    plain = build_network(name, num_classes=7, dropout=0.0, **NETWORKS[name])
    plain.to(memory_format=torch.channels_last)
    fused = copy.deepcopy(plain)
    fuse(fused)
    return plain, fused


def train_step(network, images, targets):
    network.train()
    torch.manual_seed(1)  # the heads' dropout
    output = network(images)
    loss = nn.functional.cross_entropy(output.logits, targets)
    for logits in output.aux_logits:
        loss = loss + 0.3 * nn.functional.cross_entropy(logits, targets)
    loss.backward()
    return float(loss.detach())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_learns_the_same(name):
    plain, fused = pair(name)
    plain, fused = plain.double(), fused.double()  # so that rounding cannot hide a mistake: not the kernels
    side = SIDES.get(name, 140)
    images = torch.randn(3, 3, side, side).contiguous(memory_format=torch.channels_last)
    targets = torch.tensor([0, 3, 6])
    assert train_step(fused, images.double(), targets) == pytest.approx(
        train_step(plain, images.double(), targets), rel=1e-9
    )
    exact = {key: value.grad.clone() for key, value in plain.named_parameters() if value.grad is not None}
    _, kernels = pair(name)
    loss = train_step(kernels, images, targets)
    assert loss == pytest.approx(train_step(pair(name)[0], images, targets), rel=2e-4)
    # float32 against double, through many batch norms of few values: directions agree.
    ours = torch.cat([kernels.get_parameter(key).grad.flatten().double() for key in exact])
    theirs = torch.cat([value.flatten() for value in exact.values()])
    assert float(torch.cosine_similarity(ours, theirs, dim=0)) > 0.999
    for key, value in kernels.named_buffers():
        torch.testing.assert_close(value.double(), plain.get_buffer(key).double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["googlenet_bn", "inception_v3"])
def test_evaluation_and_weights_are_untouched(name):
    plain, fused = pair(name)
    images = torch.randn(2, 3, 140, 140).contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain.eval()(images), fused.eval()(images))
    assert plain.state_dict().keys() == fused.state_dict().keys()
    assert {type(module) for module in fused.modules()} >= {FusedConvBlock, FusedConcat, FusedMaxPool}


def test_bfloat16_and_several_parts_a_step():
    """Gradients of both halves of a batch, added up, under autocast: as near to float64's as plain ones."""
    images = torch.randn(8, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    targets = torch.arange(8) % 7
    gradients = []
    for network, cast in [
        (pair("inception_small")[0].double(), False),
        *((n, True) for n in pair("inception_small")),
    ]:
        network.train()
        for part in (slice(0, 4), slice(4, 8)):
            with torch.autocast("cpu", torch.bfloat16, enabled=cast):
                logits = network(images[part] if cast else images[part].double()).logits
            nn.functional.cross_entropy(logits.float() if cast else logits, targets[part]).backward()
        gradients.append(torch.cat([p.grad.flatten().double() for p in network.parameters()]))
    exact, *rounded = gradients
    apart = [float(torch.cosine_similarity(exact, gradient, dim=0)) for gradient in rounded]
    assert apart[1] > 0.98
    assert apart[1] > apart[0] - 0.005


def test_norms_without_a_factor_stay_pytorchs():
    network = build_network("inception_v3", width=0.1, batch_norm_scale=False)
    fuse(network)
    assert not any(type(module) is FusedConvBlock for module in network.modules())


def test_a_map_smaller_than_the_window_is_refused_in_pytorchs_words():
    pool = MaxPool(3, 2, "floor").train()
    fuse(nn.Sequential(pool))
    x = torch.randn(1, 4, 2, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    with pytest.raises(RuntimeError, match="too small"):
        pool(x)


def test_frozen_and_shared_statistics_stay_pytorchs():
    plain, fused = pair("googlenet_bn")
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    for network in (plain, fused):
        set_training_mode(network, keep_statistics=True)
    torch.manual_seed(2)
    expected = plain(images).logits
    torch.manual_seed(2)
    assert torch.equal(fused(images).logits, expected)
    share_batch_norm(fused)
    fused.train()(images)
    assert any(type(module) is SharedBatchNorm for module in fused.modules())
    torch.manual_seed(2)
    expected = plain.train()(images).logits
    torch.manual_seed(2)
    torch.testing.assert_close(fused(images).logits, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("padding", ["ceil", "floor", "same"])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (3, 1), (5, 3)])
def test_pools_have_the_same_windows(padding, kernel, stride):
    for height, width in [(7, 8), (8, 9), (9, 12), (12, 7)]:
        x = torch.randn(2, 5, height, width).contiguous(memory_format=torch.channels_last)
        plain, fused = MaxPool(kernel, stride, padding).train(), MaxPool(kernel, stride, padding).train()
        fuse(nn.Sequential(fused))
        ours, theirs = (x.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2))
        y, expected = fused(ours), plain(theirs)
        assert y.grad_fn.name() == "_MaxPoolBackward"
        assert torch.equal(y, expected)
        y.sum().backward()
        expected.sum().backward()
        assert torch.equal(ours.grad, theirs.grad)


def test_only_siblings_run_as_one():
    def block(kernel=1, **options):
        conv = nn.Conv2d(6, 4, kernel, padding=kernel // 2, bias=False, **options)
        return ConvBlock(conv, nn.BatchNorm2d(4))

    blocks = [block(), block(3), block(), block(groups=2)]
    concat = Concat([[(f"b{index}", module)] for index, module in enumerate(blocks)], nested=False)
    concat.to(memory_format=torch.channels_last)
    plain = copy.deepcopy(concat)
    fuse(concat)
    found = [concat._sibling(path) is not None for path in concat.paths]
    assert found == [True, False, True, False]
    x = torch.randn(3, 6, 5, 5).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(concat(x), plain(x), rtol=1e-4, atol=1e-5)
    for key, value in plain.named_buffers():
        torch.testing.assert_close(concat.get_buffer(key), value)
