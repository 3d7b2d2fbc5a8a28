"""Calibrating a bundle: honest confidence, and a threshold that keeps what it promises."""

import numpy as np
import pytest

from inception.errors import UsageError
from inception.evaluate.calibration import fit_temperature
from inception.evaluate.recalibrate import calibrate
from inception.weights.bundle import load_bundle, save_bundle


def too_sure(n=2000, classes=3, seed=0):
    """Logits three times as large as their accuracy deserves."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, n)
    logits = generator.normal(0, 1, (n, classes))
    logits[np.arange(n), targets] += 1.5
    return (3 * logits).astype(np.float32), targets


def test_temperature_and_threshold_are_stored_and_better(tiny_bundle, tmp_path):
    logits, targets = too_sure()
    source = {"data": "made up", "split": "val"}
    result = calibrate(tiny_bundle, logits, targets, keep=0.9, source=source)
    assert result.bundle.temperature == pytest.approx(fit_temperature(logits, targets))
    assert 1.5 < result.bundle.temperature < 4
    assert result.after.loss < result.before.loss
    assert result.after.calibration_error < 0.35 * result.before.calibration_error
    assert result.after.top1 == result.before.top1
    fresh, truth = too_sure(seed=1)
    scaled = fresh / result.bundle.temperature
    shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    confidence = (shares / shares.sum(axis=1, keepdims=True)).max(axis=1)
    kept = (confidence >= result.bundle.unknown_threshold)[fresh.argmax(axis=1) == truth].mean()
    assert kept == pytest.approx(0.9, abs=0.04)
    assert result.kept >= 0.9
    assert 0 < result.refused < 1
    save_bundle(result.bundle, tmp_path / "bundle")
    again = load_bundle(tmp_path / "bundle")
    assert (again.temperature, again.unknown_threshold) == (
        result.bundle.temperature,
        result.bundle.unknown_threshold,
    )
    assert again.provenance["calibration"] == {**source, "n": 2000, "keep": 0.9}
    assert result.to_dict()["loss_before"] > result.to_dict()["loss"]


def test_all_right_and_all_wrong(tiny_bundle):
    logits = np.eye(3, dtype=np.float32)[np.arange(30) % 3] * 4
    right = calibrate(tiny_bundle, logits, np.arange(30) % 3)
    assert (right.kept, right.refused) == (1.0, None)
    wrong = calibrate(tiny_bundle, logits, (np.arange(30) + 1) % 3)
    assert (wrong.kept, wrong.refused) == (0.0, 0.0)
    assert wrong.bundle.unknown_threshold == 0.0


def test_too_few_images_and_an_impossible_share(tiny_bundle):
    logits, targets = too_sure(19)
    with pytest.raises(UsageError, match="at least 20 images, got 19"):
        calibrate(tiny_bundle, logits, targets)
    with pytest.raises(UsageError, match="keep must be a fraction"):
        calibrate(tiny_bundle, *too_sure(30), keep=0.0)
