"""What the training experiments share: verdicts, differences in words, and their table and chart."""

from collections.abc import Mapping, Sequence

from inception.study.experiment import Cell, Chart, Series, Table, Text, Verdict
from inception.study.statistics import Estimate, estimate
from inception.study.trial import Outcome

Outcomes = Mapping[str, Sequence[Outcome]]


def top1_of(outcomes: Outcomes) -> dict[str, list[float]]:
    """Accuracies by variant, in the order of the seeds."""
    return {name: [outcome.top1 for outcome in runs] for name, runs in outcomes.items()}


def verdict_of(gain: Estimate) -> Verdict:
    """What a claimed gain is worth: its interval lies above zero, below it, or holds it."""
    return "confirmed" if gain.low > 0 else "corrected" if gain.high < 0 else "not reproducible here"


def points(gain: Estimate) -> str:
    """A difference of accuracies in per cent points, with its 95% interval."""
    ends = f" ({100 * gain.low:+.1f} … {100 * gain.high:+.1f})" if gain.n > 1 else ""
    return f"{100 * gain.mean:+.1f}{ends}"


def accuracy_table(
    names: Mapping[str, Text],
    outcomes: Outcomes,
    more: Sequence[tuple[Text, Mapping[str, Cell]]] = (),
) -> Table:
    """Accuracy, runs and seconds of each variant, then the columns in `more` (heading, cell by name)."""
    rows = []
    for name, runs in outcomes.items():
        top1 = estimate([run.top1 for run in runs]).percent()
        seconds = f"{estimate([run.seconds for run in runs]).mean:.0f}"
        rows.append((names[name], top1, str(len(runs)), seconds, *(cells[name] for _, cells in more)))
    return Table(
        Text("Top-1 accuracy in per cent, mean and 95% interval", "Top-1 准确率（%），均值与 95% 区间"),
        (
            Text("Variant", "变体"),
            Text("Top-1", "Top-1"),
            Text("Runs", "次数"),
            Text("Seconds a run", "每次秒数"),
            *(heading for heading, _ in more),
        ),
        tuple(rows),
    )


def accuracy_chart(names: Mapping[str, Text], outcomes: Outcomes) -> Chart:
    """Bars with 95% intervals; without them where a variant was run once."""
    estimates = [estimate([100 * run.top1 for run in runs]) for runs in outcomes.values()]
    several = all(item.n > 1 for item in estimates)
    series = Series(
        Text("top-1", "Top-1"),
        tuple(item.mean for item in estimates),
        tuple(max(item.low, 0.0) for item in estimates) if several else (),
        tuple(min(item.high, 100.0) for item in estimates) if several else (),
    )
    return Chart(
        "bars",
        Text("Top-1 accuracy", "Top-1 准确率"),
        Text("per cent, with 95% interval", "%，含 95% 区间"),
        (series,),
        tuple(names[name] for name in outcomes),
    )
