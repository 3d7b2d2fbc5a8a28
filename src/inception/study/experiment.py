"""What an experiment is, and what it finds: plain frozen values that go to JSON and come back."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["confirmed", "corrected", "not reproducible here"]
VERDICTS: tuple[Verdict, ...] = ("confirmed", "corrected", "not reproducible here")


@dataclass(frozen=True)
class Text:
    """A text in English and in Chinese."""

    en: str
    zh: str


Cell = str | Text
"""What stands in a table: a number as text, the same in both languages, or words in both."""


@dataclass(frozen=True)
class Options:
    """How an experiment is run; 0 and "" mean the experiment's own default.

    Attributes:
        quick: the smallest run that touches every line, for tests; its numbers mean nothing.
        data: what to train on (a folder, an archive or a named set).
        seeds: runs of each variant, with seeds 0, 1, …
        epochs: passes over the training images.
        images: training images used; as many or fewer test images are.
        device: where it computes.
    """

    quick: bool = False
    data: str = ""
    seeds: int = 0
    epochs: int = 0
    images: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Table:
    """A table: a title, headings, and rows of as many cells."""

    title: Text
    heads: tuple[Text, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Series:
    """One row of bars or one curve.

    Attributes:
        name: for the legend.
        values: heights.
        low, high: ends of each value's interval; empty without intervals.
        at: where a curve's values stand; empty for bars.
    """

    name: Text
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    at: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A picture before it is drawn, so that it can be drawn in both languages and kept as JSON.

    Attributes:
        kind: `bars` (one group a category, lying) or `lines`.
        title, value: of the picture, and of the values' axis.
        series: what is drawn.
        categories: names of the groups of bars.
        place: name of a curve's other axis.
        logarithmic: whether the values' axis is.
    """

    kind: Literal["bars", "lines"]
    title: Text
    value: Text
    series: tuple[Series, ...]
    categories: tuple[Cell, ...] = ()
    place: Text = Text("", "")
    logarithmic: bool = False


@dataclass(frozen=True)
class Finding:
    """One claim, what became of it, and why."""

    claim: Text
    verdict: Verdict
    explanation: Text


@dataclass(frozen=True)
class Report:
    """What a run of an experiment found.

    Attributes:
        findings: each claim with its verdict.
        tables, charts: the numbers.
        seeds: those that were run; empty where nothing is random.
        setting: data, epochs and what else was chosen, by name.
    """

    findings: tuple[Finding, ...]
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...] = ()
    seeds: tuple[int, ...] = ()
    setting: Mapping[str, str] = field(default_factory=dict)


Say = Callable[[str], None]
"""Takes one line about how far an experiment is."""


@dataclass(frozen=True)
class Experiment:
    """A claim and the way to check it.

    Attributes:
        id: its name on the command line.
        title, claim: what it is about, and what is claimed.
        cost: what a run with the defaults takes on two CPU cores.
        run: does it.
        defaults: what `Options` of 0 and "" mean; empty for experiments that do not train.
        quick: the same for `Options.quick`.
    """

    id: str
    title: Text
    claim: Text
    cost: Text
    run: Callable[[Options, Say], Report]
    defaults: Options = Options()
    quick: Options = Options()

    def chosen(self, options: Options) -> Options:
        """`options` with every 0 and "" replaced by this experiment's default."""
        base = self.quick if options.quick else self.defaults
        names = ("data", "seeds", "epochs", "images")
        return dataclasses.replace(
            options, **{name: getattr(options, name) or getattr(base, name) for name in names}
        )


def report_to_dict(report: Report) -> dict[str, Any]:
    """As dictionaries, lists, texts and numbers, ready for JSON."""
    return dataclasses.asdict(report)


def report_from_dict(values: Mapping[str, Any]) -> Report:
    """Inverse of `report_to_dict`, also after JSON; KeyError or TypeError if it is none."""
    return Report(
        findings=tuple(
            Finding(_text(item["claim"]), item["verdict"], _text(item["explanation"]))
            for item in values["findings"]
        ),
        tables=tuple(_table(item) for item in values["tables"]),
        charts=tuple(_chart(item) for item in values["charts"]),
        seeds=tuple(values["seeds"]),
        setting=dict(values["setting"]),
    )


def _text(value: Mapping[str, str]) -> Text:
    return Text(**value)


def _cell(value: str | Mapping[str, str]) -> Cell:
    return value if isinstance(value, str) else _text(value)


def _table(value: Mapping[str, Any]) -> Table:
    return Table(
        _text(value["title"]),
        tuple(map(_text, value["heads"])),
        tuple(tuple(map(_cell, row)) for row in value["rows"]),
    )


def _chart(value: Mapping[str, Any]) -> Chart:
    series = tuple(
        Series(_text(item["name"]), *(tuple(item[key]) for key in ("values", "low", "high", "at")))
        for item in value["series"]
    )
    texts = {key: _text(value[key]) for key in ("title", "value", "place")}
    categories = tuple(map(_cell, value["categories"]))
    return Chart(
        value["kind"], series=series, categories=categories, logarithmic=value["logarithmic"], **texts
    )
