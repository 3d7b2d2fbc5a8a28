"""Evaluations of made-up classifiers."""

from collections.abc import Callable

import numpy as np
import pytest

from inception.evaluate.metrics import Evaluation, evaluate_logits

MakeEvaluation = Callable[..., Evaluation]


@pytest.fixture
def make_evaluation() -> MakeEvaluation:
    """A function that gives the evaluation of random logits, right about two times in three."""

    def make(classes: int = 4, n: int = 60, labels: list[str] | None = None) -> Evaluation:
        generator = np.random.default_rng(classes)
        targets = generator.integers(0, classes, n)
        logits = generator.normal(0, 1, (n, classes))
        logits[np.arange(n), targets] += 0.4 + np.sqrt(2 * np.log(classes))
        return evaluate_logits(logits, targets, labels or [f"class {index}" for index in range(classes)])

    return make
