"""Metrics against scikit-learn, against their definitions, and at their edges."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from inception.errors import DataError, InceptionError, UsageError
from inception.evaluate import scores as scores_module
from inception.evaluate.metrics import Evaluation, evaluate_logits, wilson_interval


def random_case(seed: int, n: int = 200, classes: int = 7, dtype: type = np.float32):
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, n)
    logits = generator.normal(0, 2, (n, classes)).astype(dtype)
    logits[np.arange(n), targets] += 2
    return logits, targets


def names(classes: int) -> list[str]:
    return [f"class {index}" for index in range(classes)]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


cases = st.builds(
    random_case,
    seed=st.integers(0, 10_000),
    n=st.integers(1, 60),
    classes=st.integers(2, 9),
    dtype=st.sampled_from([np.float32, np.float64]),
)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_agrees_with_scikit_learn(case):
    logits, targets = case
    classes = logits.shape[1]
    result = evaluate_logits(logits, targets, names(classes))
    predicted, probabilities = logits.argmax(axis=1), softmax(logits)
    everything = np.arange(classes)

    assert result.loss == pytest.approx(sk.log_loss(targets, probabilities, labels=everything), rel=1e-6)
    assert result.top1 == pytest.approx(sk.accuracy_score(targets, predicted))
    if classes > 5:
        expected = sk.top_k_accuracy_score(targets, logits, k=5, labels=everything)
        assert result.top5 == pytest.approx(expected)
    else:
        assert result.top5 == 1.0
    matrix = sk.confusion_matrix(targets, predicted, labels=everything)
    assert np.array_equal(result.confusion_matrix(), matrix)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        targets, predicted, labels=everything, zero_division=0
    )
    for item in result.classes:
        assert (item.precision or 0) == pytest.approx(precision[item.index])
        assert (item.recall or 0) == pytest.approx(recall[item.index])
        assert (item.f1 or 0) == pytest.approx(f1[item.index])
        assert item.support == support[item.index]
    present = np.unique(targets)
    macro = sk.precision_recall_fscore_support(
        targets, predicted, labels=present, zero_division=0, average="macro"
    )
    assert (result.macro.precision, result.macro.recall, result.macro.f1) == pytest.approx(macro[:3])
    recalls = [recall[index] for index in present]
    assert result.balanced_accuracy == pytest.approx(float(np.mean(recalls)))
    truth = np.eye(classes)[targets]
    assert result.brier == pytest.approx(np.square(probabilities - truth).sum(axis=1).mean())


@settings(max_examples=30, deadline=None)
@given(cases)
def test_specificity_and_roc_area_agree_with_scikit_learn(case):
    logits, targets = case
    result = evaluate_logits(logits, targets, names(logits.shape[1]))
    log_probabilities = np.log(softmax(logits))
    for item in result.classes:
        one = targets == item.index
        if one.all() or not one.any():
            assert item.roc_auc is None
        else:
            assert item.roc_auc == pytest.approx(sk.roc_auc_score(one, log_probabilities[:, item.index]))
        if one.all():
            assert item.specificity is None
        else:
            others = sk.recall_score(~one, logits.argmax(axis=1) != item.index)
            assert item.specificity == pytest.approx(others)


def test_balanced_accuracy_is_scikit_learns():
    logits, targets = random_case(3)
    result = evaluate_logits(logits, targets, names(7))
    assert result.balanced_accuracy == pytest.approx(
        sk.balanced_accuracy_score(targets, logits.argmax(axis=1))
    )


def test_roc_area_counts_equal_scores_half():
    logits = np.zeros((4, 2))
    result = evaluate_logits(logits, np.array([0, 0, 1, 1]), names(2))
    assert [item.roc_auc for item in result.classes] == [0.5, 0.5]


@settings(max_examples=40, deadline=None)
@given(cases, st.floats(0.1, 10))
def test_temperature_changes_confidence_and_never_the_answer(case, temperature):
    logits, targets = case
    plain = evaluate_logits(logits, targets, names(logits.shape[1]))
    scaled = evaluate_logits(logits, targets, names(logits.shape[1]), temperature=temperature)
    assert (plain.top1, plain.top5) == (scaled.top1, scaled.top5)
    assert np.array_equal(plain.confusion, scaled.confusion)
    divided = evaluate_logits(logits.astype(np.float64) / temperature, targets, names(logits.shape[1]))
    assert scaled.loss == pytest.approx(divided.loss)
    assert scaled.brier == pytest.approx(divided.brier)


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(0, 1000))
def test_the_order_of_the_images_does_not_matter(case, seed):
    logits, targets = case
    order = np.random.default_rng(seed).permutation(len(targets))
    one = evaluate_logits(logits, targets, names(logits.shape[1])).to_dict()
    other = evaluate_logits(logits[order], targets[order], names(logits.shape[1])).to_dict()
    for key in ("top1", "top5", "confusion", "classes"):
        assert one[key] == other[key]
    assert one["loss"] == pytest.approx(other["loss"])


@settings(max_examples=40, deadline=None)
@given(cases)
def test_every_fraction_is_a_fraction(case):
    logits, targets = case
    result = evaluate_logits(logits, targets, names(logits.shape[1]))
    assert result.loss >= 0
    assert 0 <= result.top1 <= result.top5 <= 1
    assert result.top1_interval[0] <= result.top1 <= result.top1_interval[1]
    assert 0 <= result.calibration_error <= 1
    assert 0 <= result.brier <= 2
    assert sum(item.count for item in result.bins) == result.n == len(targets)
    assert result.confusion[:, 2].sum() == result.n


def test_ties_go_to_the_lowest_class():
    logits = np.zeros((8, 8), dtype=np.float32)
    result = evaluate_logits(logits, np.arange(8), names(8))
    assert result.samples.predicted.tolist() == [0] * 8
    assert result.samples.rank.tolist() == list(range(8))
    assert result.top1 == 1 / 8
    assert result.top5 == 5 / 8


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_rank_is_the_place_in_a_stable_sort(seed):
    generator = np.random.default_rng(seed)
    logits = generator.integers(0, 3, (20, 6)).astype(np.float32)
    targets = generator.integers(0, 6, 20)
    result = evaluate_logits(logits, targets, names(6))
    order = np.argsort(-logits, axis=1, kind="stable")
    places = [int(np.flatnonzero(row == target)[0]) for row, target in zip(order, targets, strict=True)]
    assert result.samples.rank.tolist() == places
    assert np.array_equal(result.samples.correct, result.samples.rank == 0)


def test_classes_that_never_occur():
    logits = np.array([[3.0, 0, 0, 0], [3, 0, 0, 0], [0, 3, 0, 0]])
    result = evaluate_logits(logits, np.array([0, 1, 1]), names(4))
    absent = result.classes[3]
    assert (absent.support, absent.predicted) == (0, 0)
    assert (absent.precision, absent.recall, absent.f1, absent.roc_auc) == (None, None, None, None)
    assert absent.specificity == 1.0
    assert result.macro.recall == result.balanced_accuracy == 0.75


def test_one_class_only():
    result = evaluate_logits(np.ones((3, 1)), np.zeros(3, dtype=np.int64), ["all"])
    assert (result.top1, result.top5, result.loss) == (1.0, 1.0, 0.0)
    assert result.macro.roc_auc is None
    assert result.classes[0].specificity is None


def test_hand_worked_example():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.1, 0.0, 0.9]])
    logits = np.log(np.maximum(probabilities, 1e-12))
    result = evaluate_logits(logits, np.array([0, 1, 1, 0]), ["a", "b", "c"])
    assert result.top1 == 0.5
    assert result.loss == pytest.approx(-np.log([0.7, 0.6, 0.3, 0.1]).mean())
    assert result.mistakes.tolist() == [3, 2]
    assert [(pair.true, pair.predicted, pair.count, pair.share) for pair in result.confused_pairs] == [
        (0, 2, 1, 0.5),
        (1, 0, 1, 0.5),
    ]
    gaps = (abs(0.7 - 1) + abs(0.6 - 1) + 0.5 + 0.9) / 4
    assert result.calibration_error == pytest.approx(gaps)


def test_equally_confident_mistakes_keep_their_order():
    result = evaluate_logits(np.zeros((5, 2)), np.ones(5, dtype=np.int64), names(2))
    assert result.mistakes.tolist() == [0, 1, 2, 3, 4]


def test_slicing_changes_nothing(monkeypatch):
    logits, targets = random_case(1)
    whole = evaluate_logits(logits, targets, names(7))
    monkeypatch.setattr(scores_module, "_SLICE_NUMBERS", 20)
    sliced = evaluate_logits(logits, targets, names(7))
    assert whole.to_dict() == sliced.to_dict()


def test_many_classes_need_little_memory():
    classes = 40_000
    logits = np.zeros((3, classes), dtype=np.float32)
    logits[:, 7] = 1
    result = evaluate_logits(logits, np.array([7, 7, 39_999]), names(classes))
    assert result.confusion.tolist() == [[7, 7, 2], [39_999, 7, 1]]
    assert result.confusion_matrix([39_999, 7]).tolist() == [[0, 1], [0, 2]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_named(bad):
    logits = np.zeros((5, 3), dtype=np.float32)
    logits[3, 1] = bad
    with pytest.raises(InceptionError, match=r"image 3 .*not finite"):
        evaluate_logits(logits, np.zeros(5, dtype=np.int64), names(3))


@pytest.mark.parametrize(
    ("logits", "targets", "labels", "error", "message"),
    [
        (np.zeros(3), np.zeros(3, int), names(3), UsageError, "images x classes"),
        (np.zeros((3, 2), int), np.zeros(3, int), names(2), UsageError, "floats"),
        (np.zeros((3, 2)), np.zeros(2, int), names(2), UsageError, "as many targets"),
        (np.zeros((3, 2)), np.zeros(3), names(2), UsageError, "integers"),
        (np.zeros((3, 2)), np.full(3, 2), names(2), UsageError, "0 … 1"),
        (np.zeros((3, 2)), np.full(3, -1), names(2), UsageError, "0 … 1"),
        (np.zeros((3, 2)), np.zeros(3, int), names(3), UsageError, "2 outputs but 3 labels"),
        (np.zeros((0, 2)), np.zeros(0, int), names(2), DataError, "no image"),
    ],
)
def test_arguments_that_do_not_fit(logits, targets, labels, error, message):
    with pytest.raises(error, match=message):
        evaluate_logits(logits, targets, labels)


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf])
def test_impossible_temperatures(temperature):
    with pytest.raises(UsageError, match="temperature"):
        evaluate_logits(np.zeros((1, 2)), np.array([0]), names(2), temperature=temperature)


def test_wilson_interval_of_known_value():
    # Newcombe (1998), table I: 81 of 263 by the score method.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(20, 20)[1] == 1.0
    with pytest.raises(UsageError):
        wilson_interval(1, 0)


@settings(max_examples=25, deadline=None)
@given(cases)
def test_dictionary_is_strict_json(case):
    logits, targets = case
    result = evaluate_logits(logits, targets, names(logits.shape[1]))
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert {"top1", "top5", "loss", "n"} <= data.keys()
    assert data["top1"] == result.top1
    assert len(data["mistakes"]) == min(100, len(result.mistakes))


def test_per_class_csv_reads_back():
    labels = ['"quoted", with comma', "洋甘菊", "absent"]
    result: Evaluation = evaluate_logits(np.eye(3)[[0, 1, 1]], np.array([0, 1, 0]), labels)
    rows = list(csv.DictReader(io.StringIO(result.per_class_csv())))
    assert [row["label"] for row in rows] == labels
    assert [row["support"] for row in rows] == ["2", "1", "0"]
    assert float(rows[0]["recall"]) == 0.5
    assert rows[2]["precision"] == ""
