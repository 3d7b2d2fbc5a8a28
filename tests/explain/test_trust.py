"""Deletion, insertion, rank correlation and randomised weights."""

import numpy as np
import pytest
import torch

from inception.errors import UsageError
from inception.explain.attribution import Options, Question, attribute
from inception.explain.pictures import blur
from inception.explain.trust import (
    STEPS,
    Curves,
    curves,
    mean_interval,
    random_scores,
    randomisation,
    spearman,
)
from inception.nets.registry import build_network

QUESTION = Question(1)


def probability(network, image):
    with torch.no_grad():
        return float(torch.softmax(network.eval()(image[None]), dim=1)[0, 1])


def test_curves_begin_and_end_with_the_image_and_the_empty_one(network, images):
    image = images[0]
    found = curves(network, image, torch.rand(32, 32), QUESTION)
    assert network.training
    whole, empty = probability(network, image), probability(network, torch.zeros_like(image))
    assert found.deletion[0] == pytest.approx(whole, abs=1e-5)
    assert found.deletion[-1] == pytest.approx(empty, abs=1e-5)
    assert found.insertion[0] == pytest.approx(probability(network, blur(image[None], 1 / 20)[0]), abs=1e-5)
    assert found.insertion[-1] == pytest.approx(whole, abs=1e-5)
    assert len(found.deletion) == len(found.insertion) == STEPS + 1


def test_the_most_important_pixels_go_first(network, images):
    image = images[0]
    attribution = torch.zeros(32, 32)
    attribution[:, :16] = 1.0  # the left half: gone after half the steps
    half = image.clone()
    half[:, :, :16] = 0.0
    found = curves(network, image, attribution, QUESTION)
    assert found.deletion[STEPS // 2] == pytest.approx(probability(network, half), abs=1e-5)


def test_scores_are_areas():
    found = Curves(deletion=(1.0, 0.0), insertion=(0.0, 1.0, 1.0))
    assert found.deletion_score == 0.5
    assert found.insertion_score == 0.75
    values = found.to_dict((0.6, 0.5))
    assert values["deletion_gain"] == pytest.approx(0.1)
    assert values["insertion_gain"] == pytest.approx(0.25)


def test_ties_and_random_maps_are_deterministic(network, images):
    flat = torch.zeros(32, 32)
    first, second, other = (curves(network, images[0], flat, QUESTION, seed) for seed in (0, 0, 1))
    assert first == second != other
    assert random_scores(network, images[0], QUESTION) == random_scores(network, images[0], QUESTION)


def test_spearman_is_scipys():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 9, (2, 60)).astype(float)  # with ties
    assert spearman(torch.tensor(a), torch.tensor(b)) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert spearman(torch.zeros(5), torch.arange(5.0)) == 0.0


def test_the_interval_of_a_mean():
    mean, low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    assert 1.0 <= low < 2.5 < high <= 4.0
    assert mean_interval([2.0]) == (2.0, 2.0, 2.0)
    with pytest.raises(UsageError):
        mean_interval([])


def test_randomised_weights_change_the_map_and_not_the_network(network, images):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random_state = torch.get_rng_state()

    def explain(chosen):
        return attribute(chosen, images[:1], QUESTION, "smoothgrad", Options(samples=4))

    first = randomisation(network, explain, levels=3)
    assert [stage for stage, _ in first] == ["classifier", "inception4b", "conv1"]
    assert all(-1 <= value < 0.95 for _, value in first)
    assert first == randomisation(network, explain, levels=3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())


def test_batch_norm_without_a_factor_is_randomised_too(images):
    network = build_network("googlenet_bn", num_classes=5, width=0.125, stem="small", batch_norm_scale=False)

    def explain(chosen):
        return attribute(chosen, images[:1], QUESTION, "smoothgrad", Options(samples=2))

    assert len(randomisation(network, explain, levels=3)) == 3
