"""Experiment 2 against the verified facts."""

import pytest
from facts import read_table

from inception.study import reduction
from inception.study.experiment import Options


def test_lecture_example_is_208_896():
    assert reduction.lecture_example() == (819_200, 128 * 32 + 32 * 25 * 256) == (819_200, 208_896)


def test_modules_are_the_verified_ones(shared):
    facts = read_table(shared, "inception_naive_vs_reduced")
    pairs = reduction.module_pairs()
    assert list(pairs) == [fact["module"] for fact in facts]
    for fact in facts:
        naive, reduced, (channels, side) = pairs[fact["module"]]
        assert (channels, side) == (int(fact["in_ch"]), int(fact["hw"]))
        assert reduction.weights_of(naive) == int(fact["naiveA_weights"])
        assert reduction.weights_of(reduced) == int(fact["reduced_weights"])
        assert reduction.multiply_adds(naive, side) == int(fact["naiveA_macs"])
        assert reduction.multiply_adds(reduced, side) == int(fact["reduced_macs"])


def test_quick_run_has_all_nine_modules_and_the_cascade():
    report = reduction.run(Options(quick=True), lambda _: None)
    assert [row[0] for row in report.tables[0].rows] == list(reduction.module_pairs())
    assert [row[1:] for row in report.tables[1].rows] == [("92,451,840", "4,944"), ("5,842,176", "1,024")]
    times = [series.values for series in report.charts[0].series]
    assert all(len(values) == 9 and min(values) > 0 for values in times)
    naive_peak, reduced_peak = (float(report.tables[0].rows[0][column]) for column in (9, 10))
    # Input, and all that is there when the branches are joined: 192 + 416 + 416 maps of 28 x 28 floats.
    assert naive_peak == pytest.approx((192 + 2 * 416) * 28 * 28 * 4 / 2**20, abs=0.01)
    assert reduced_peak < naive_peak
