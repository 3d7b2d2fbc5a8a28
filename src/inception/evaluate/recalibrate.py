"""Temperature and threshold for `unknown` fitted on held-out images and stored in a bundle."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inception.errors import UsageError
from inception.evaluate.calibration import fit_temperature, unknown_threshold
from inception.evaluate.metrics import Evaluation, evaluate_logits
from inception.evaluate.scores import score_samples
from inception.weights.bundle import Bundle

LEAST_IMAGES = 20
"""Fewer images say nothing about a threshold that one in twenty may miss."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What calibrating a bundle changed, on the images it was done on.

    Attributes:
        bundle: the bundle with the new temperature and threshold.
        before, after: the evaluation with the old temperature and with the new one.
        kept: share of the right answers at or above the threshold.
        refused: share of the wrong answers below it.
    """

    bundle: Bundle
    before: Evaluation
    after: Evaluation
    kept: float
    refused: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: temperature, threshold, and loss and calibration error before and after."""
        return {
            "n": self.after.n,
            "temperature": self.bundle.temperature,
            "unknown_threshold": self.bundle.unknown_threshold,
            "loss_before": self.before.loss,
            "loss": self.after.loss,
            "calibration_error_before": self.before.calibration_error,
            "calibration_error": self.after.calibration_error,
            "right_answers_kept": self.kept,
            "wrong_answers_refused": self.refused,
        }


def calibrate(
    bundle: Bundle,
    logits: NDArray[np.floating],
    targets: NDArray[np.integer],
    *,
    keep: float = 0.95,
    source: dict[str, Any] | None = None,
) -> Calibration:
    """Fit temperature and threshold on images that were neither trained nor are tested on.

    Args:
        bundle: whose logits they are.
        logits: N x K, before any temperature.
        targets: N true classes.
        keep: share of the right answers that the threshold must keep, in (0, 1].
        source: what the images were, stored in the bundle's provenance as `calibration`.

    Raises:
        UsageError: fewer than 20 images, or `keep` outside (0, 1].
        InceptionError: what `evaluate_logits` raises.
    """
    if len(targets) < LEAST_IMAGES:
        raise UsageError(f"calibrating needs at least {LEAST_IMAGES} images, got {len(targets)}")
    temperature = fit_temperature(logits, targets)
    threshold = unknown_threshold(logits, targets, keep, temperature=temperature)
    scores = score_samples(logits, targets, temperature=temperature)
    above, right = scores.confidence >= threshold, scores.correct
    record = {**(source or {}), "n": len(targets), "keep": keep}
    return Calibration(
        replace(
            bundle,
            temperature=temperature,
            unknown_threshold=threshold,
            provenance={**bundle.provenance, "calibration": record},
        ),
        evaluate_logits(logits, targets, bundle.labels, temperature=bundle.temperature),
        evaluate_logits(logits, targets, bundle.labels, temperature=temperature),
        float(above[right].mean()) if right.any() else 0.0,
        float((~above[~right]).mean()) if not right.all() else None,
    )
