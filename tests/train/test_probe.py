"""The linear probe against scikit-learn, and its choice of penalty."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from inception.train import probe as module
from inception.train.probe import FOLDS, PENALTIES, fit_probe
from inception.train.trainee import score_error


def blobs(classes: int, images: int, width: int, spread: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (classes, width))
    targets = np.arange(images) % classes
    features = centres[targets] + rng.normal(0, spread, (images, width))
    return torch.tensor(features, dtype=torch.float32)[None], torch.from_numpy(targets)


@pytest.mark.parametrize("penalty", [100.0, 3.0])
@pytest.mark.parametrize("views", [1, 2])
def test_the_solution_is_scikit_learns(penalty, views, monkeypatch):
    features, targets = blobs(4, 60, 7, spread=1.5)
    if views == 2:
        noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
        features = torch.cat([features, features + 0.1 * noise])
    monkeypatch.setattr(module, "PENALTIES", (penalty,))
    probe = fit_probe(features, targets, 4, seed=0)
    scale = float(features.std())
    rows = features.reshape(-1, 7).double().numpy() / scale
    # Ours divides the data's part by views x images, theirs sums it: C = 1 / (penalty x views).
    reference = LogisticRegression(C=1 / (penalty * views), tol=1e-10, max_iter=10_000)
    reference.fit(rows, np.tile(targets.numpy(), views))
    ours = torch.softmax(features[0] @ probe.weight.T + probe.bias, 1)
    theirs = reference.predict_proba(features[0].double().numpy() / scale)
    assert np.abs(ours.numpy() - theirs).max() < 2e-3
    assert np.abs(probe.weight.numpy() * scale - reference.coef_).max() < 5e-3
    assert probe.weight.dtype == probe.bias.dtype == torch.float32


def test_with_several_labels_each_is_scikit_learns(monkeypatch):
    features, classes = blobs(4, 80, 6, spread=1.5)
    truth = torch.stack([classes % 2 == 0, classes > 0], 1)
    monkeypatch.setattr(module, "PENALTIES", (10.0,))
    probe = fit_probe(features, truth.float(), 2, seed=0)
    scale = float(features.std())
    rows = features[0].double().numpy() / scale
    for label in range(2):
        reference = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(rows, truth[:, label].numpy())
        assert np.abs(probe.weight[label].numpy() * scale - reference.coef_[0]).max() < 5e-3
        assert float(probe.bias[label]) == pytest.approx(float(reference.intercept_[0]), abs=5e-3)
    assert 0.5 < probe.scores[0][1] <= 1.0


def test_separable_classes_are_separated():
    features, targets = blobs(5, 100, 20, spread=0.05)
    probe = fit_probe(features, targets, 5, seed=0)
    assert ((features[0] @ probe.weight.T + probe.bias).argmax(1) == targets).all()
    assert probe.scores[-1][1] == 1.0


def test_the_strongest_penalty_within_one_standard_error_is_taken():
    features, targets = blobs(6, 90, 12, spread=1.8, seed=3)
    probe = fit_probe(features, targets, 6, seed=0)
    assert [score[0] for score in probe.scores] == list(PENALTIES)
    best = max(probe.scores, key=lambda score: score[1])
    allowed = [p for p, accuracy, _ in probe.scores if accuracy >= best[1] - best[2] - 1e-7]
    assert probe.penalty == max(allowed)
    for _, accuracy, error in probe.scores:
        share = (90 * accuracy + 2) / 94
        assert error == pytest.approx(math.sqrt(share * (1 - share) / 94), rel=1e-4)


@pytest.mark.parametrize("images", [20, 72, 1000])
def test_where_all_are_right_one_image_is_no_difference(images):
    assert 1 / images < score_error(1.0, images) < 2 / images
    assert score_error(0.0, images) == pytest.approx(score_error(1.0, images))


def test_the_error_of_many_images_is_the_binomial_one():
    assert score_error(0.9, 10**6) == pytest.approx(math.sqrt(0.9 * 0.1 / 10**6), rel=1e-4)
    # Agresti and Coull: two of each kind more, of 20 images 18 right.
    assert score_error(0.9, 20) == pytest.approx(math.sqrt((20 / 24) * (4 / 24) / 24))


def test_held_out_accuracy_is_honest_on_noise():
    rng = np.random.default_rng(0)
    features = torch.tensor(rng.normal(0, 1, (1, 120, 40)), dtype=torch.float32)
    probe = fit_probe(features, torch.arange(120) % 3, 3, seed=0)
    assert all(abs(accuracy - 1 / 3) < 0.17 for _, accuracy, _ in probe.scores)


def test_folds_hold_every_class_evenly():
    targets = np.repeat(np.arange(5), [8, 12, 3, 40, 1])
    folds = module._fold_of(targets, seed=1)
    for label in range(5):
        counts = np.bincount(folds[targets == label], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(folds, module._fold_of(targets, seed=2))


@pytest.mark.parametrize("images", [3, 4, 7])
def test_very_few_images_do_not_break_it(images):
    features, targets = blobs(3, images, 5, spread=0.1)
    probe = fit_probe(features, targets, 3, seed=0)
    assert torch.isfinite(probe.weight).all()
    assert fit_probe(torch.zeros(1, images, 5), targets, 3, seed=0).weight.abs().max() < 1e-6


def test_the_same_seed_gives_the_same_probe():
    features, targets = blobs(3, 40, 6, spread=1.0)
    first, second = (fit_probe(features, targets, 3, seed=4) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert first.scores == second.scores
