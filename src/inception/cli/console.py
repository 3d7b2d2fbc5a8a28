"""How the commands talk: messages and progress to standard error, results to standard output."""

import json
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

messages = Console(stderr=True, highlight=False)
PLAIN_WIDTH = 200
"""Columns of a table that goes to a file or a pipe rather than to a terminal."""


def say(text: str) -> None:
    """One message for a person."""
    messages.print(escape(text), soft_wrap=True)


def print_json(value: Any, indent: int | None = None) -> None:
    """One JSON value on standard output."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # file names need not be text; JSON can escape what cannot be encoded
        text = json.dumps(value, indent=indent)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """A table on standard output; columns that hold numbers are aligned right."""
    table = Table(title=title, title_justify="left")
    for index, heading in enumerate(headings):
        numeric = all(_is_numeric(row[index]) for row in rows)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    output = Console(file=sys.stdout, highlight=False)
    if not output.is_terminal:
        output.width = PLAIN_WIDTH
    output.print(table)


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
        self._progress.update(self._task, note=f"{rate} {note}".strip())


def make_progress() -> Progress:
    """Columns: what, bar, how many, share, rate and note, elapsed and remaining time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
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
        yield Bar(progress, progress.add_task(description, total=total, note=""))
