"""How the commands talk: messages and progress to standard error, results to standard output."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from inception.data.csv_text import CsvWriter
from inception.errors import printable

messages = Console(stderr=True, highlight=False, emoji=False)
PLAIN_WIDTH = 200
"""Columns of a table that goes to a file or a pipe rather than to a terminal."""
_RAW_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters that JSON leaves as they are."""


def say(text: str) -> None:
    """One message for a person."""
    messages.print(escape(printable(text)), soft_wrap=True)


def print_json(value: Any, indent: int | None = None) -> None:
    """One JSON value on standard output."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    text = _RAW_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # file names need not be text; JSON can escape what cannot be encoded
        text = json.dumps(value, indent=indent)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def csv_output() -> CsvWriter:
    """Rows of CSV on standard output; on a terminal with its control characters escaped."""
    return CsvWriter(sys.stdout, printable if sys.stdout.isatty() else str)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """A table on standard output; columns that hold numbers are aligned right."""
    table = Table(title=None if title is None else _cell(title), title_justify="left")
    for index, heading in enumerate(headings):
        numeric = all(_is_numeric(row[index]) for row in rows)
        table.add_column(_cell(heading), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    output = Console(file=sys.stdout, highlight=False, emoji=False)
    if not output.is_terminal:
        output.width = PLAIN_WIDTH
    output.print(table)


def _cell(text: str) -> str:
    return escape(printable(text))


def _is_numeric(cell: str) -> bool:
    return ", " not in cell and cell.strip("×/%KMGB.,-+ 0123456789e") == ""


class Bar:
    """A progress bar with rate and remaining time."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress, self._task = progress, task

    def set_total(self, total: int) -> None:
        """Now that it is known how many there are in all."""
        self._progress.update(self._task, total=total)

    def advance(self, count: int, note: str = "") -> None:
        """`count` more are done."""
        self._progress.advance(self._task, count)
        task = self._progress.tasks[self._progress.task_ids.index(self._task)]
        rate = f"{task.speed:,.0f}/s" if task.speed else ""
        self._progress.update(self._task, note=printable(f"{rate} {note}".strip()))


def make_progress() -> Progress:
    """Columns: what, bar, how many, share, rate and note, elapsed and remaining time."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )


@contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Bar]:
    """A bar on standard error while the block runs."""
    with make_progress() as progress:
        yield Bar(progress, progress.add_task(printable(description), total=total, note=""))
