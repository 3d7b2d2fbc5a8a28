"""Models x crops as one table, in the form of Table 3 of "Going Deeper with Convolutions".

The paper's columns are the number of models, the number of crops, their cost (models x crops), the top-5
error and its change against one model with one crop. Here every row also has the top-1 error, the loss
(which tells differences apart that a few images' errors do not), and 95% bootstrap intervals; the changes are
paired: each drawn image brings both its answers.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inception.errors import UsageError
from inception.evaluate.answers import Answers, evaluate_probabilities
from inception.evaluate.crops import Crops
from inception.evaluate.ensemble import average
from inception.evaluate.metrics import Evaluation, Interval
from inception.evaluate.scores import FloatArray
from inception.evaluate.significance import McNemar, mcnemar, mean_interval

COSTS: dict[Crops, int] = {"single": 1, "2": 2, "6": 6, "1": 1, "10": 10, "12": 12, "144": 144}
"""Evaluations of the network an image; the paper's count, equal views included."""


@dataclass(frozen=True)
class Row:
    """One line of the table; errors and their changes are fractions, a negative change is a gain.

    Attributes:
        models: how many classifiers are averaged: the first so many that were named.
        crops: way of cropping.
        cost: models x crops; None for `dense`, which has no number of crops.
        top1_error, top5_error: with their 95% bootstrap intervals.
        loss: mean cross-entropy in nats, with its interval.
        top1_change, top5_change, loss_change: against the first row, with their paired 95% intervals.
    """

    models: int
    crops: Crops
    cost: int | None
    top1_error: float
    top1_interval: Interval
    top5_error: float
    top5_interval: Interval
    loss: float
    loss_interval: Interval
    top1_change: float
    top1_change_interval: Interval
    top5_change: float
    top5_change_interval: Interval
    loss_change: float
    loss_change_interval: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return asdict(self)


def table3(answers: Answers, crops: Sequence[Crops], counts: Sequence[int]) -> tuple[Row, ...]:
    """One row for each number of models and way of cropping, the first of each being the base.

    Args:
        answers: of at least `max(counts)` classifiers in all these ways of cropping.
        crops: in the order of the rows.
        counts: numbers of models, in the order of the rows; the answers of the first so many are averaged.

    Raises:
        UsageError: there is no row to make, or more models are asked for than have answered.
    """
    known = {number for number, _ in answers.probabilities}
    if not crops or not counts or not 1 <= min(counts) <= max(counts) <= len(known):
        raise UsageError(f"a table needs ways of cropping, and numbers of models in 1 … {len(known)}")
    base: dict[str, FloatArray] = {}
    rows = []
    for count in counts:
        for name in crops:
            mean = average([answers.probabilities[number, name] for number in range(count)])
            costs = _costs(evaluate_probabilities(mean, answers.targets, answers.labels))
            base = base or costs
            evaluations = None if name == "dense" else count * COSTS[name]
            rows.append(_row(count, name, evaluations, costs, base))
    return tuple(rows)


def _wrong(evaluation: Evaluation) -> dict[str, NDArray[np.bool_]]:
    rank = evaluation.samples.rank
    return {"top1": rank > 0, "top5": rank >= min(5, len(evaluation.labels))}


def _costs(evaluation: Evaluation) -> dict[str, FloatArray]:
    """What each image costs in every row of the table: 0 or 1 for an error, and its loss."""
    errors = {f"{name}_error": wrong.astype(np.float64) for name, wrong in _wrong(evaluation).items()}
    return {**errors, "loss": evaluation.samples.loss}


def _row(
    models: int,
    crops: Crops,
    cost: int | None,
    costs: dict[str, FloatArray],
    base: dict[str, FloatArray],
) -> Row:
    values: dict[str, Any] = {}
    for name, of_images in costs.items():
        change = of_images - base[name]
        short = name.removesuffix("_error")
        values[name] = float(of_images.mean())
        values[f"{short}_interval"] = mean_interval(of_images)
        values[f"{short}_change"] = float(change.mean())
        values[f"{short}_change_interval"] = mean_interval(change)
    return Row(models, crops, cost, **values)


@dataclass(frozen=True)
class Comparison:
    """Two classifiers on the same images: the second against the first.

    Attributes:
        first, second: their names.
        top1_change, top5_change: accuracy of the second minus that of the first, as fractions.
        top1_interval, top5_interval: paired 95% bootstrap intervals of the changes.
        mcnemar: whether their numbers of right answers differ by more than chance.
    """

    first: str
    second: str
    top1_change: float
    top1_interval: Interval
    top5_change: float
    top5_interval: Interval
    mcnemar: McNemar

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return asdict(self)


def compare(first: Evaluation, second: Evaluation, names: tuple[str, str]) -> Comparison:
    """Compare two evaluations of the same images in the same order.

    Raises:
        UsageError: they are not of the same images.
    """
    if not np.array_equal(first.samples.targets, second.samples.targets):
        raise UsageError(f"{names[0]} and {names[1]} were not measured on the same images")
    before, after = _wrong(first), _wrong(second)
    changes = {name: before[name].astype(np.int64) - after[name] for name in before}
    return Comparison(
        *names,
        float(changes["top1"].mean()),
        mean_interval(changes["top1"]),
        float(changes["top5"].mean()),
        mean_interval(changes["top5"]),
        mcnemar(~before["top1"], ~after["top1"]),
    )
