"""The learning rate at every step."""

import math
from typing import Literal

ScheduleName = Literal["auto", "cosine", "linear", "paper", "bn", "v3", "constant"]
STEPS = {"paper": (0.96, 8.0), "bn": (0.96, 8.0 / 6.0), "v3": (0.94, 2.0)}
"""Schedules that multiply the rate every so many epochs: Szegedy et al. 2015 (section 6), Ioffe and Szegedy
2015 (section 4.2.1: six times faster), Szegedy et al. 2016 (section 8)."""


def rate_factor(schedule: ScheduleName, step: int, steps: int, steps_per_epoch: int, warmup: float) -> float:
    """What the peak learning rate is multiplied with at `step` (from 0) of `steps`, in 0..1.

    `warmup` is the share of the run in which the factor rises linearly; `cosine` and
    `linear` then fall to 0 at the end.
    """
    warmup_steps = int(warmup * steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    if schedule in STEPS:
        factor, epochs = STEPS[schedule]
        return float(factor ** (step // (epochs * steps_per_epoch)))
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    if schedule == "linear":
        return 1.0 - progress
    return 0.5 * (1.0 + math.cos(math.pi * progress))
