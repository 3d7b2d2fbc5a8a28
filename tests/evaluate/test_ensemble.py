"""Averages of classifiers, their weights, and the table of models x crops."""

import numpy as np
import pytest

from inception.errors import UsageError
from inception.evaluate.answers import Answers, evaluate_probabilities
from inception.evaluate.ensemble import average, fit_weights, label_order
from inception.evaluate.metrics import evaluate_logits
from inception.evaluate.table3 import compare, table3


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def made_up(strengths, n=200, classes=8, seed=0):
    """Probabilities of classifiers of different strength on the same images, and the true classes."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, n)
    arrays = []
    for strength in strengths:
        logits = generator.normal(0, 1, (n, classes))
        logits[np.arange(n), targets] += strength
        arrays.append(softmax(logits).astype(np.float32))
    return arrays, targets


def test_labels_in_another_order_and_other_labels():
    assert label_order(("a", "b"), ("a", "b"), "second") is None
    assert label_order(("a", "b", "c"), ("c", "a", "b"), "second").tolist() == [1, 2, 0]
    with pytest.raises(UsageError, match=r"second has other classes .* lacks 'c' and it alone has 'd', 'e'"):
        label_order(("a", "b", "c"), ("a", "b", "d", "e"), "second")
    with pytest.raises(UsageError, match="it lacks 'b', 'c', 'd' and 1 more;"):
        label_order(("a", "b", "c", "d", "e"), ("a",), "second")
    # The same list may name a class twice (ImageNet's two cranes); another order cannot be matched then.
    assert label_order(("crane", "crane", "x"), ("crane", "crane", "x"), "second") is None
    with pytest.raises(UsageError, match="stand for two classes"):
        label_order(("crane", "crane", "x"), ("x", "crane", "crane"), "second")


def test_average_and_its_weights():
    arrays, _ = made_up((1.0, 2.0, 3.0), n=5)
    assert np.allclose(average(arrays), np.mean(arrays, axis=0), atol=1e-7)
    assert np.allclose(average(arrays, (1, 0, 3)), (arrays[0] + 3 * arrays[2]) / 4, atol=1e-7)
    for weights in ((1, 1), (1, -1, 1), (0, 0, 0)):
        with pytest.raises(UsageError, match="weights"):
            average(arrays, weights)
    with pytest.raises(UsageError, match="same images"):
        average([arrays[0], arrays[1][:3]])


def test_weights_make_the_cross_entropy_smallest():
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is compared with")
    arrays, targets = made_up((0.5, 2.0, 2.2))
    weights = np.array(fit_weights(arrays, targets))
    assert weights.sum() == pytest.approx(1.0)
    of_truth = np.stack([array[np.arange(len(targets)), targets] for array in arrays], axis=1)

    def loss(shares):
        return -np.log(of_truth @ (np.abs(shares) / np.abs(shares).sum())).mean()

    theirs = optimize.minimize(loss, np.full(3, 1 / 3), method="Nelder-Mead", options={"xatol": 1e-8})
    assert loss(weights) <= theirs.fun + 1e-8
    assert weights == pytest.approx(np.abs(theirs.x) / np.abs(theirs.x).sum(), abs=1e-3)
    assert weights[0] < weights[1]


def test_one_good_classifier_takes_all_and_nothing_is_refused():
    arrays, targets = made_up((0.0, 8.0))
    weights = fit_weights(arrays, targets)
    assert weights[1] > 0.99
    with pytest.raises(UsageError, match="at least one image"):
        fit_weights(arrays, targets[:0])


def test_probabilities_are_measured_like_logits():
    generator = np.random.default_rng(6)
    logits, targets = generator.normal(0, 2, (50, 6)), generator.integers(0, 6, 50)
    labels = [str(index) for index in range(6)]
    ours = evaluate_probabilities(softmax(logits), targets, labels)
    theirs = evaluate_logits(logits, targets, labels)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-9)
    assert (ours.top1, ours.top5, ours.brier) == pytest.approx((theirs.top1, theirs.top5, theirs.brier))
    sure = np.eye(6, dtype=np.float32)[targets]
    assert evaluate_probabilities(sure, targets, labels).top1 == 1.0


@pytest.fixture
def answers() -> Answers:
    single, targets = made_up((1.0, 1.2, 1.4), seed=1)
    better, _ = made_up((2.0, 2.2, 2.4), seed=1)
    probabilities = {(number, "1"): array for number, array in enumerate(single)}
    probabilities |= {(number, "144"): array for number, array in enumerate(better)}
    paths = tuple(f"{index}.jpg" for index in range(len(targets)))
    return Answers(probabilities, targets, tuple("abcdefgh"), paths, {})


def test_table3_has_a_row_for_every_number_of_models_and_crops(answers):
    rows = table3(answers, ("1", "144"), (1, 3))
    assert [(row.models, row.crops, row.cost) for row in rows] == [
        (1, "1", 1),
        (1, "144", 144),
        (3, "1", 3),
        (3, "144", 432),
    ]
    base = rows[0]
    assert (base.top5_change, base.top5_change_interval) == (0.0, (0.0, 0.0))
    for row in rows:
        mean = np.mean([answers.probabilities[number, row.crops] for number in range(row.models)], axis=0)
        order = np.argsort(-mean, axis=1)
        wrong = ~(order[:, :5] == answers.targets[:, None]).any(axis=1)
        assert row.top5_error == pytest.approx(wrong.mean())
        assert row.top1_error == pytest.approx((order[:, 0] != answers.targets).mean())
        assert row.top5_interval[0] <= row.top5_error <= row.top5_interval[1]
        assert row.top1_change == pytest.approx(row.top1_error - base.top1_error)
        assert row.top1_change_interval[0] <= row.top1_change <= row.top1_change_interval[1]
        assert row.loss == pytest.approx(-np.log(mean[np.arange(200), answers.targets]).mean(), rel=1e-5)
        assert row.loss_change == pytest.approx(row.loss - base.loss)
        assert row.loss_change_interval[0] <= row.loss_change <= row.loss_change_interval[1]
        assert row.to_dict()["models"] == row.models
    assert rows[1].top1_change_interval[1] < 0
    with pytest.raises(UsageError, match="numbers of models in 1 … 3"):
        table3(answers, ("1",), (4,))


def test_two_evaluations_are_compared_in_pairs(answers):
    first, second = (
        evaluate_probabilities(answers.probabilities[0, crops], answers.targets, answers.labels)
        for crops in ("1", "144")
    )
    result = compare(first, second, ("first", "second"))
    assert result.top1_change == pytest.approx(second.top1 - first.top1)
    assert result.top1_interval[0] > 0
    assert result.mcnemar.only_second > result.mcnemar.only_first
    assert result.mcnemar.exact_p < 0.01
    assert result.to_dict()["mcnemar"]["exact_p"] == result.mcnemar.exact_p
    other, targets = made_up((1.0,), seed=8)
    with pytest.raises(UsageError, match="not measured on the same images"):
        compare(first, evaluate_probabilities(other[0], targets, answers.labels), ("first", "third"))
