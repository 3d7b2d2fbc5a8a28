"""Reliability bins, temperature scaling and the threshold for unknown images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from inception.errors import UsageError
from inception.evaluate.calibration import fit_temperature, reliability_bins, unknown_threshold
from inception.evaluate.scores import score_samples


def calibrated_case(seed: int, scale: float, n: int = 4000, classes: int = 5):
    """Logits whose probabilities are the truth at temperature `scale`."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (n, classes))
    noise = generator.gumbel(size=(n, classes))
    return logits * scale, (logits + noise).argmax(axis=1)


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_temperature_recovers_the_one_that_made_the_data(scale):
    logits, targets = calibrated_case(0, scale)
    assert fit_temperature(logits, targets) == pytest.approx(scale, rel=0.06)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 5))
def test_temperature_is_the_minimum_that_scipy_finds(seed, scale):
    logits, targets = calibrated_case(seed, scale, n=60)

    smoothing = 1 / (len(logits) + 2)
    wanted = np.full(logits.shape, smoothing / logits.shape[1])
    wanted[np.arange(len(logits)), targets] += 1 - smoothing

    def loss(logarithm: float) -> float:
        return float(-(wanted * log_softmax(logits / np.exp(logarithm), axis=1)).sum(axis=1).mean())

    found = minimize_scalar(loss, bounds=np.log([0.01, 100]), method="bounded", options={"xatol": 1e-9})
    assert loss(np.log(fit_temperature(logits, targets))) == pytest.approx(found.fun, abs=1e-9)


def test_temperature_of_float32_logits():
    logits, targets = calibrated_case(2, 2.0)
    assert fit_temperature(logits.astype(np.float32), targets) == pytest.approx(
        fit_temperature(logits, targets), rel=1e-5
    )


def test_temperature_stays_in_its_range():
    sure = np.eye(3)[[0, 1, 2]]
    assert fit_temperature(sure, np.array([1, 2, 0])) == 100
    assert fit_temperature(np.zeros((4, 3)), np.array([0, 1, 2, 0])) == 1.0
    assert fit_temperature(1000 * sure, np.array([0, 1, 2])) > 0


def test_a_few_right_answers_are_no_proof_of_certainty():
    logits = 4 * np.eye(3)[[0, 1, 2, 0, 1, 2]]
    temperature = fit_temperature(logits, np.array([0, 1, 2, 0, 1, 2]))
    confidence = np.exp(logits[0] / temperature).max() / np.exp(logits[0] / temperature).sum()
    # Smoothed targets of six images: 1 - 1/8 + 1/8/3.
    assert confidence == pytest.approx(1 - 1 / 8 + 1 / 24, abs=1e-6)


def test_bins_hold_their_upper_edge():
    logits = np.log(np.array([[0.6, 0.4], [1 - 1e-15, 1e-15], [0.5, 0.5]]))
    bins = reliability_bins(score_samples(logits, np.array([0, 0, 1])), bins=10)
    assert [item.count for item in bins] == [0, 0, 0, 0, 1, 1, 0, 0, 0, 1]
    assert (bins[4].confidence, bins[4].accuracy) == (0.5, 0.0)
    assert bins[0].confidence is None
    assert bins[0].accuracy is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 1), st.integers(1, 80))
def test_threshold_keeps_as_many_as_asked_and_no_lower_one_is_needed(seed, keep, n):
    logits, targets = calibrated_case(seed, 2.0, n=n)
    threshold = unknown_threshold(logits, targets, keep)
    scores = score_samples(logits, targets)
    confidences = scores.confidence[scores.correct]
    if len(confidences) == 0:
        assert threshold == 0.0
        return
    assert (confidences >= threshold).mean() >= keep - 1e-9
    assert (confidences > threshold).mean() < keep + 1e-9


def test_threshold_of_whole_counts():
    probabilities = np.linspace(0.51, 0.99, 100)
    logits = np.log(np.stack([probabilities, 1 - probabilities], axis=1))
    targets = np.zeros(100, dtype=np.int64)
    assert unknown_threshold(logits, targets, 0.07) == pytest.approx(probabilities[93])
    assert unknown_threshold(logits, targets, 1.0) == pytest.approx(0.51)
    cooler = unknown_threshold(logits, targets, 1.0, temperature=2.0)
    assert 0.5 < cooler < 0.51


@pytest.mark.parametrize("keep", [0, -0.1, 1.1, np.nan])
def test_impossible_keep(keep):
    with pytest.raises(UsageError, match="keep"):
        unknown_threshold(np.zeros((1, 2)), np.array([0]), keep)
