"""The learning-rate range test: how the loss answers to a rate that rises from step to step.

Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3. The rate rises
exponentially; the suggestion is where the smoothed loss falls fastest, at most a third of the rate where it
is smallest. The test works on a copy of the network and leaves the run as it would have been.
"""

import copy
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inception.errors import TrainingError, UsageError
from inception.files import atomic_write_bytes, atomic_write_text
from inception.nets.network import Network
from inception.train.choose import pilot_batches, untouched_random_state
from inception.train.config import TrainConfig
from inception.train.trainee import Setting, make_trainee

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 100
RANGES = {"sgd": (1e-5, 10.0), "rmsprop": (1e-5, 10.0), "muon": (1e-4, 10.0), "adamw": (1e-7, 1.0)}
SMOOTHING = 0.9
DIVERGED = 3.0
"""The test ends where the smoothed loss is so many times its smallest value."""
JSON_FILE, PICTURE_FILE = "learning_rate.json", "learning_rate.png"


@dataclass(frozen=True)
class RangeTest:
    """A finished test.

    Attributes:
        rates: learning rate of every step.
        losses: loss of every step, before its update.
        smoothed: the same as a bias-corrected running mean.
        suggestion: the rate to train with.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form."""
        return {
            "suggestion": self.suggestion,
            "rates": self.rates,
            "losses": self.losses,
            "smoothed": self.smoothed,
        }


def find_learning_rate(network: Network, config: TrainConfig, setting: Setting) -> RangeTest:
    """Run the test on a copy of `network` under a resolved `config`.

    Raises TrainingError when the loss falls nowhere, so that there is no rate to suggest.
    """
    low, high = RANGES[config.optimizer]
    rates, losses = [], []
    config = replace(config, skip_nonfinite=True, ema_decay=0.0)
    setting.observer.message(f"learning-rate range test: {STEPS} steps from {low:g} to {high:g}")
    setting.observer.epoch_started(0, 1, STEPS * config.batch_size)
    with untouched_random_state(setting.device):
        torch.manual_seed(config.seed)
        trainee = make_trainee(copy.deepcopy(network), config, setting)
        for number, batch in enumerate(pilot_batches(config, setting, STEPS)):
            rate = low * (high / low) ** (number / (STEPS - 1))
            tally = trainee.step(batch, rate)
            setting.observer.batch_done(tally.seen or len(batch.targets), tally.loss)
            if not math.isfinite(tally.loss):
                break
            rates.append(rate)
            losses.append(tally.loss)
            averages = smooth(losses)
            if averages[-1] > DIVERGED * min(averages):
                break
    return RangeTest(tuple(rates), tuple(losses), smooth(losses), suggest(rates, smooth(losses)))


def smooth(losses: Sequence[float]) -> tuple[float, ...]:
    """Running mean with decay 0.9, corrected for its start."""
    mean, result = 0.0, []
    for count, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss
        result.append(mean / (1.0 - SMOOTHING**count))
    return tuple(result)


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> float:
    """The rate at which the smoothed loss falls fastest, at most a third of that where it is smallest.

    The first tenth is left out: a mean of few losses moves by chance.
    """
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__, default=0)
    settled = len(smoothed) // 10
    if lowest < settled + 2:
        raise TrainingError(
            "the range test found no learning rate at which the loss falls: check the data with "
            "`inception check`, or give --learning-rate"
        )
    falls = [smoothed[index - 1] - smoothed[index + 1] for index in range(settled + 1, lowest)]
    steepest = rates[settled + 1 + max(range(len(falls)), key=falls.__getitem__)]
    return float(f"{min(steepest, rates[lowest] / 3.0):.2g}")


def write_range_test(result: RangeTest, folder: Path) -> None:
    """Leave the test as JSON and, where matplotlib is installed, as a picture. Raises WriteError."""
    atomic_write_text(folder / JSON_FILE, json.dumps(result.to_dict()) + "\n")
    from inception.evaluate import plots

    with suppress(UsageError):  # no matplotlib, no picture
        atomic_write_bytes(folder / PICTURE_FILE, plots.to_png(range_test_figure(result)))


def range_test_figure(result: RangeTest) -> "Figure":
    """Loss against rate, with the suggestion. Raises UsageError where matplotlib is not installed."""
    from inception.evaluate import plots

    figure = plots.new_figure(5.6, 3.4)
    axes = figure.add_axes((0.12, 0.16, 0.85, 0.72))
    axes.plot(
        result.rates, result.losses, ".", color=plots.INK, alpha=0.3, markersize=4, label="of each step"
    )
    axes.plot(result.rates, result.smoothed, color=plots.BLUE, label="smoothed")
    axes.axvline(result.suggestion, color=plots.ORANGE, label=f"suggestion {result.suggestion:g}")
    axes.set_xscale("log")
    axes.set_ylim(0.0, 1.1 * min(max(result.smoothed), DIVERGED * min(result.smoothed)))
    plots.style(axes, title="Learning-rate range test", x="learning rate", y="training loss")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=plots.INK)
    return figure
