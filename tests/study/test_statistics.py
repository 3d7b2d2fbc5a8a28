"""Intervals against scipy's own."""

import math

import pytest
from scipy import stats

from inception.study.comparison import points, verdict_of
from inception.study.statistics import difference, estimate

VALUES = [0.91, 0.93, 0.90, 0.95]


def test_interval_is_students():
    found = estimate(VALUES)
    low, high = stats.t.interval(0.95, len(VALUES) - 1, loc=found.mean, scale=stats.sem(VALUES))
    assert found.mean == pytest.approx(0.9225)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.percent().startswith("92.2 (") or found.percent().startswith("92.3 (")


def test_one_run_says_nothing_about_spread():
    found = estimate([0.5])
    assert math.isinf(found.high)
    assert found.percent() == "50.0"
    assert verdict_of(found) == "not reproducible here"
    assert points(found) == "+50.0"


def test_differences_are_paired():
    found = difference([1.0, 2.0, 3.1], [0.9, 1.9, 3.0])
    assert found.mean == pytest.approx(0.1)
    assert verdict_of(found) == "confirmed"
    assert verdict_of(difference([0.9, 1.9, 3.0], [1.0, 2.0, 3.1])) == "corrected"


def test_a_share_is_printed_between_0_and_100():
    assert estimate([0.2, 0.95]).percent() == "57.5 (0.0 to 100.0)"
