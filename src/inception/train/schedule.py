"""The learning rate at every step."""

import math
from typing import Literal

ScheduleName = Literal["auto", "cosine", "paper", "constant"]
PAPER_DECAY, PAPER_EPOCHS = 0.96, 8
"""The paper lowers the rate by 4% every 8 epochs (section 6)."""


def rate_factor(schedule: ScheduleName, step: int, steps: int, steps_per_epoch: int, warmup: float) -> float:
    """What the peak learning rate is multiplied with at `step` (from 0) of `steps`, in 0..1.

    `warmup` is the share of the run in which the factor rises linearly; `cosine` then falls to 0 at the end.
    """
    warmup_steps = int(warmup * steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    if schedule == "paper":
        return float(PAPER_DECAY ** (step // (PAPER_EPOCHS * steps_per_epoch)))
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return 0.5 * (1.0 + math.cos(math.pi * progress))
