"""Metrics of several labels an image, against scikit-learn; thresholds against trying them all."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from inception.errors import DataError, InceptionError, UsageError
from inception.evaluate.multilabel import (
    FEW_POSITIVES,
    average_precision,
    evaluate_labels,
    fit_thresholds,
    mean_average_precision,
    sigmoid,
)

LABELS = ("a", "b", "c", "d", "never")
THRESHOLDS = (0.5, 0.3, 0.7, 0.5, 0.5)


def example(seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random((60, 5)) < np.array([0.5, 0.3, 0.2, 0.8, 0.0])
    logits = rng.normal(size=(60, 5)) + 1.5 * truth
    return (np.round(logits) if ties else logits).astype(np.float32), truth


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns(ties):
    logits, truth = example(1, ties)
    for index in range(4):
        ours = average_precision(logits[:, index], truth[:, index])
        assert ours == pytest.approx(sk.average_precision_score(truth[:, index], logits[:, index]))
    assert average_precision(logits[:, 4], truth[:, 4]) is None
    theirs = sk.average_precision_score(truth[:, :4], logits[:, :4], average="macro")
    assert mean_average_precision(logits, truth) == pytest.approx(theirs)


@pytest.mark.parametrize("ties", [False, True])
def test_everything_else_is_scikit_learns_and_torchs(ties):
    logits, truth = example(2, ties)
    result = evaluate_labels(logits, truth, LABELS, THRESHOLDS)
    given = sigmoid(logits) >= np.array(THRESHOLDS)
    assert np.array_equal(result.given, given)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits).double(), torch.from_numpy(truth).double()
    )
    assert result.loss == pytest.approx(float(loss))
    assert result.exact == pytest.approx(sk.accuracy_score(truth, given))
    assert result.hamming == pytest.approx(sk.hamming_loss(truth, given))
    for name, columns in (("micro", slice(5)), ("macro", slice(4))):
        ours = getattr(result, name)
        theirs = sk.precision_recall_fscore_support(
            truth[:, columns], given[:, columns], average=name, zero_division=0.0
        )
        # Answers of a label that never occurs are wrong answers, but no class of the macro average.
        if name == "micro":
            assert ours.precision == pytest.approx(theirs[0])
            assert ours.f1 == pytest.approx(theirs[2])
        else:
            assert (ours.precision, ours.recall, ours.f1) == pytest.approx(theirs[:3])
    for index in range(4):
        item = result.classes[index]
        assert item.support == truth[:, index].sum()
        assert item.roc_auc == pytest.approx(sk.roc_auc_score(truth[:, index], logits[:, index]))
    assert result.classes[4].recall is None
    assert result.classes[4].average_precision is None


def test_extreme_logits_do_not_overflow():
    logits = np.array([[900.0, -900.0], [-900.0, 900.0]])
    result = evaluate_labels(logits, logits > 0, ("a", "b"), (0.5, 0.5))
    assert (result.loss, result.map, result.exact) == (0.0, 1.0, 1.0)


def test_thresholds_are_the_best_that_there_are():
    logits, truth = example(3)
    thresholds = fit_thresholds(logits, truth)
    probabilities = sigmoid(logits)
    assert truth[:, :4].sum(0).min() >= FEW_POSITIVES
    for index in range(4):
        column, wanted = probabilities[:, index], truth[:, index]

        def f1(threshold, column=column, wanted=wanted):
            return sk.f1_score(wanted, column >= threshold, zero_division=0.0)

        best = max(f1(value) for value in np.unique(column))
        assert f1(thresholds[index]) == pytest.approx(best)
        assert np.abs(column - thresholds[index]).min() > 0
    assert thresholds[4] == 0.5
    few = np.zeros((30, 1), dtype=bool)
    few[: FEW_POSITIVES - 1] = True
    assert fit_thresholds(np.random.default_rng(0).normal(size=(30, 1)), few) == (0.5,)


def test_what_cannot_be_measured_is_said():
    logits, truth = example()
    with pytest.raises(UsageError, match="thresholds"):
        evaluate_labels(logits, truth, LABELS, (0.5,))
    with pytest.raises(UsageError, match="images x labels"):
        evaluate_labels(logits[:3], truth, LABELS, THRESHOLDS)
    with pytest.raises(DataError, match="no image"):
        evaluate_labels(logits[:0], truth[:0], LABELS, THRESHOLDS)
    with pytest.raises(DataError, match="has a label"):
        evaluate_labels(logits, np.zeros_like(truth), LABELS, THRESHOLDS)
    logits[2, 1] = np.nan
    with pytest.raises(InceptionError, match="finite"):
        evaluate_labels(logits, truth, LABELS, THRESHOLDS)
