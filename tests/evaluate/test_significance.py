"""Intervals and tests against closed forms and scipy."""

import math

import numpy as np
import pytest

from inception.errors import UsageError
from inception.evaluate.metrics import evaluate_logits
from inception.evaluate.significance import bootstrap_interval, mcnemar, mean_interval, score_intervals


def test_bootstrap_of_a_mean_is_near_the_normal_interval():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = mean_interval(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_bootstrap_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats", reason="scipy is compared with")
    values = np.random.default_rng(2).random(150) < 0.7
    theirs = stats.bootstrap(
        (values.astype(float),), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    )
    assert mean_interval(values, resamples=4000) == pytest.approx(
        (theirs.confidence_interval.low, theirs.confidence_interval.high), abs=0.015
    )


def test_blocks_of_draws_are_the_same_draws(monkeypatch):
    values = np.random.default_rng(3).random(50)
    whole = mean_interval(values)
    monkeypatch.setattr("inception.evaluate.significance._BLOCK_NUMBERS", 50 * 7)
    assert mean_interval(values) == pytest.approx(whole)


def test_a_paired_interval_is_narrower_than_two_unpaired_ones():
    generator = np.random.default_rng(4)
    first = generator.random(300) < 0.8
    second = first ^ (generator.random(300) < 0.02)
    paired = mean_interval(second.astype(int) - first)
    one, other = mean_interval(first), mean_interval(second)
    assert paired[1] - paired[0] < 0.5 * ((one[1] - one[0]) + (other[1] - other[0]))
    assert paired[0] <= (second.mean() - first.mean()) <= paired[1]


@pytest.mark.parametrize(("count", "resamples"), [(0, 2000), (10, 5)])
def test_impossible_bootstraps(count, resamples):
    with pytest.raises(UsageError, match="at least 100 resamples"):
        bootstrap_interval(np.array([count, 0]), lambda drawn: drawn.mean(axis=1), resamples=resamples)


def test_score_intervals_hold_the_scores():
    generator = np.random.default_rng(5)
    targets = generator.integers(0, 7, 200)
    logits = generator.normal(0, 1, (200, 7))
    logits[np.arange(200), targets] += 2
    evaluation = evaluate_logits(logits, targets, [str(index) for index in range(7)])
    intervals = score_intervals(evaluation.samples, 7)
    for name in ("top1", "top5", "loss", "brier", "balanced_accuracy"):
        low, high = intervals[name]
        assert low < getattr(evaluation, name) < high, name
    assert intervals["top1"] == pytest.approx(evaluation.top1_interval, abs=0.02)
    # The mean of recalls, drawn by hand.
    draws = np.random.default_rng(9).integers(0, 200, (400, 200))
    by_hand = [
        np.mean(
            [evaluation.samples.correct[row][targets[row] == one].mean() for one in np.unique(targets[row])]
        )
        for row in draws
    ]
    assert intervals["balanced_accuracy"] == pytest.approx(np.quantile(by_hand, [0.025, 0.975]), abs=0.02)
    assert intervals == score_intervals(evaluation.samples, 7)


@pytest.mark.parametrize(
    ("left", "right"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 21), (121, 59), (900, 1000)]
)
def test_mcnemar_against_scipy_and_the_closed_form(left, right):
    stats = pytest.importorskip("scipy.stats", reason="scipy is compared with")
    both = np.ones(30, dtype=bool)
    first = np.concatenate([both, np.ones(left, bool), np.zeros(right, bool), ~both])
    second = np.concatenate([both, np.zeros(left, bool), np.ones(right, bool), ~both])
    result = mcnemar(first, second)
    assert (result.only_first, result.only_second) == (left, right)
    if left + right == 0:
        assert (result.statistic, result.exact_p, result.chi_square_p) == (0.0, 1.0, 1.0)
        return
    # statsmodels: mcnemar(table, exact=True) is min(1, 2 * binom.cdf(min(b, c), b + c, 0.5)),
    # exact=False, correction=True is (|b - c| - 1)^2 / (b + c) against chi2(1).
    exact = min(1.0, 2 * stats.binom.cdf(min(left, right), left + right, 0.5))
    assert result.exact_p == pytest.approx(exact, rel=1e-9)
    assert result.exact_p == pytest.approx(stats.binomtest(left, left + right, 0.5).pvalue, rel=1e-9)
    if left != right:
        statistic = (abs(left - right) - 1) ** 2 / (left + right)
        assert result.statistic == pytest.approx(statistic)
        assert result.chi_square_p == pytest.approx(stats.chi2.sf(statistic, 1), rel=1e-9)
    assert result.to_dict()["only_first"] == left


def test_mcnemar_needs_the_same_images():
    for first, second in (([True], [True, False]), ([], [])):
        with pytest.raises(UsageError, match="same images"):
            mcnemar(np.array(first, bool), np.array(second, bool))
