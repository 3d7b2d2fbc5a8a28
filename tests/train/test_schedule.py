"""The learning rate against its formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception.train.schedule import rate_factor


def test_warmup_is_a_straight_line_to_one():
    factors = [rate_factor("cosine", step, 100, 10, 0.2) for step in range(20)]
    assert factors == pytest.approx([(step + 1) / 20 for step in range(20)])


def test_cosine_falls_from_one_to_nothing():
    factors = [rate_factor("cosine", step, 100, 10, 0.2) for step in range(20, 100)]
    assert factors[0] == 1.0
    assert factors == pytest.approx([(1 + math.cos(math.pi * i / 80)) / 2 for i in range(80)])
    assert rate_factor("cosine", 100, 100, 10, 0.2) == pytest.approx(0.0)


def test_linear_falls_evenly_to_nothing():
    factors = [rate_factor("linear", step, 100, 10, 0.2) for step in range(20, 101)]
    assert factors == pytest.approx([1 - i / 80 for i in range(81)])


def test_the_papers_schedule_loses_four_percent_every_eight_epochs():
    factors = [rate_factor("paper", 10 * epoch, 1000, 10, 0.0) for epoch in range(0, 33)]
    assert factors[:8] == [1.0] * 8
    assert factors[8:16] == pytest.approx([0.96] * 8)
    assert factors[32] == pytest.approx(0.96**4)


def test_the_schedules_of_the_other_papers():
    faster = [rate_factor("bn", 3 * epoch, 300, 3, 0.0) for epoch in range(9)]
    assert faster == pytest.approx([0.96 ** (epoch * 6 // 8) for epoch in range(9)])
    v3 = [rate_factor("v3", 10 * epoch + 9, 1000, 10, 0.0) for epoch in range(5)]
    assert v3 == pytest.approx([1.0, 1.0, 0.94, 0.94, 0.94**2])


def test_constant_is_constant_after_the_warmup():
    assert [rate_factor("constant", step, 10, 5, 0.0) for step in range(10)] == [1.0] * 10
    assert rate_factor("constant", 0, 10, 5, 0.5) == pytest.approx(0.2)


@given(
    st.sampled_from(["cosine", "linear", "paper", "bn", "v3", "constant"]),
    st.integers(0, 500),
    st.integers(1, 500),
    st.integers(1, 50),
    st.floats(0, 1),
)
def test_a_factor_is_always_in_the_unit_interval(schedule, step, steps, per_epoch, warmup):
    assert 0.0 <= rate_factor(schedule, min(step, steps), steps, per_epoch, warmup) <= 1.0
