"""Means of a few runs and how sure they are."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Estimate(NamedTuple):
    """A mean with the ends of its 95% interval, and the number of values."""

    mean: float
    low: float
    high: float
    n: int

    def percent(self) -> str:
        """A share as per cent with the interval, such as `91.2 (90.1 to 92.3)`, cut off at 0 and 100."""
        low, high = max(self.low, 0.0), min(self.high, 1.0)
        ends = "" if math.isinf(self.high) else f" ({100 * low:.1f} to {100 * high:.1f})"
        return f"{100 * self.mean:.1f}{ends}"


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95% interval of independent runs by Student's t; infinite with a single value.

    Raises statistics.StatisticsError when there is no value.
    """
    from scipy.stats import t

    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Estimate(mean, -math.inf, math.inf, n)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Mean and 95% interval of `first - second`, run by run: both must have been run with the same seeds."""
    return estimate([a - b for a, b in zip(first, second, strict=True)])
