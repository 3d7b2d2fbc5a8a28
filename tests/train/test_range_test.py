"""The learning-rate range test: its rule, its files, and that it leaves no trace in the run."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from shapes import tiny_config, write_shapes
from test_run import same_weights

from inception.errors import TrainingError
from inception.train import range_test
from inception.train.range_test import RANGES, smooth, suggest
from inception.train.run import train_bundle
from inception.weights.bundle import load_bundle


def test_smoothing_is_a_weighted_mean():
    losses = [3.0, 2.0, 5.0, 1.0]
    for count in range(1, 5):
        weights = [0.9**age for age in range(count)][::-1]
        expected = np.average(losses[:count], weights=weights)
        assert smooth(losses)[count - 1] == pytest.approx(expected)


def test_the_steepest_fall_is_suggested():
    rates = [10.0 ** (exponent / 10) for exponent in range(-50, 0)]
    # A fall around 1e-3, its end at 1e-2, a rise after it.
    losses = [2.0 - 1 / (1 + math.exp(-3 * (math.log10(rate) + 3))) + max(0.0, rate - 0.03) for rate in rates]
    assert suggest(rates, losses) == pytest.approx(1e-3, rel=0.3)
    # Never beyond a third of the rate where the loss is smallest.
    cliff = [2.0] * 30 + [1.9, 1.0] + [5.0] * 18
    assert suggest(rates, cliff) <= rates[31] / 3 * 1.05


def test_the_first_steps_decide_nothing():
    """A mean of one or two losses falls by chance, at rates that move nothing."""
    rates = [10.0 ** (exponent / 20) for exponent in range(-100, 0)]
    losses = [2.0 - 1 / (1 + math.exp(-3 * (math.log10(rate) + 2))) for rate in rates]
    assert suggest(rates, [4.0, 3.0, 2.1, *losses[3:]]) == suggest(rates, losses) > 1e-3


def test_a_loss_that_never_falls_gives_no_rate():
    with pytest.raises(TrainingError, match="no learning rate at which the loss falls"):
        suggest([0.1, 1.0, 10.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_chooses_the_rate_and_leaves_the_run_as_it_was(tmp_path, optimizer, monkeypatch):
    monkeypatch.setattr(range_test, "STEPS", 40)
    data = write_shapes(tmp_path / "data", {"train": 8, "val": 2})
    options = {"epochs": 1, "optimizer": optimizer}
    found = train_bundle(tiny_config(data, tmp_path / "found", find_learning_rate=True, **options))
    content = json.loads((tmp_path / "found" / "learning_rate.json").read_text())
    rate = content["suggestion"]
    low, high = RANGES[optimizer]
    assert low < rate < high
    assert content["rates"] == pytest.approx(
        [low * (high / low) ** (step / 39) for step in range(len(content["rates"]))]
    )
    with Image.open(tmp_path / "found" / "learning_rate.png") as picture:
        assert min(picture.size) > 200
    told = train_bundle(tiny_config(data, tmp_path / "told", learning_rate=rate, **options))
    assert same_weights(load_bundle(found.bundle), load_bundle(told.bundle))
