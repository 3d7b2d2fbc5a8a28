"""The fixed first convolution: uncorrelated answers of variance 1, both signs, and a run that keeps it."""

import pytest
import torch
from shapes import tiny_config, write_shapes
from torch import nn

from inception.errors import UsageError
from inception.nets.registry import build_network
from inception.train.run import train_bundle
from inception.train.whiten import first_convolution, whiten
from inception.weights.bundle import load_bundle


def smooth_images(count: int = 64) -> torch.Tensor:
    """Neighbouring pixels and channels that resemble each other, as photographs' do."""
    noise = torch.randn(count, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    blurred = nn.functional.avg_pool2d(noise, 3, 1)
    return blurred + 0.5 * blurred.mean(1, keepdim=True)


def test_answers_are_uncorrelated_with_variance_one():
    network = build_network("googlenet_bn", stem="small", num_classes=3)
    images = smooth_images()
    whiten(network, images)
    convolution = first_convolution(network)
    # 27 components of 3x3 patches in 64 filters; borders see zeros, so they are left out.
    answers = convolution(images)[:, :27, 1:-1, 1:-1].transpose(0, 1).flatten(1)
    covariance = torch.cov(answers)
    variances = torch.linalg.eigvalsh(torch.cov(patches_of(images).T))
    expected = (variances / (variances + 5e-4)).flip(0)
    assert torch.allclose(covariance, torch.diag(expected), atol=1e-3)
    assert torch.equal(convolution.weight[27:54], -convolution.weight[:27])
    assert not convolution.weight.requires_grad


def patches_of(images: torch.Tensor) -> torch.Tensor:
    return nn.functional.unfold(images, 3).transpose(1, 2).reshape(-1, 27)


def test_few_filters_take_the_strongest_components():
    network = build_network("lenet5", num_classes=3)
    whiten(network, smooth_images()[:, :3])
    convolution = first_convolution(network)
    answers = convolution(smooth_images())
    assert torch.allclose(answers.std((0, 2, 3)), torch.ones(6), atol=0.1)


def test_one_filter_is_too_few():
    network = nn.Sequential(nn.Conv2d(3, 1, 3))
    with pytest.raises(UsageError, match="two filters"):
        whiten(network, smooth_images())


def test_a_run_keeps_the_first_convolution_and_the_bundle_holds_it(tmp_path):
    write_shapes(tmp_path / "data", {"train": 6})
    outcomes = []
    for epochs in (1, 2):
        config = tiny_config(tmp_path / "data", tmp_path / f"run{epochs}", epochs=epochs, whiten="yes")
        bundle = load_bundle(train_bundle(config).bundle)
        outcomes.append(first_convolution(bundle.build()).weight)
    assert torch.equal(outcomes[0], outcomes[1])
