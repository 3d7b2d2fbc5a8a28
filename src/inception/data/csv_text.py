"""CSV that a spreadsheet opens as text: names of files and labels are never formulas.

Source: OWASP, "CSV Injection". A cell that begins with one of `FORMULA_MARKS` gets one apostrophe before it,
unless it is a number; `unprotected` takes it off again.
"""

import csv
import re
from collections.abc import Callable, Iterable
from typing import Any, TextIO

FORMULA_MARKS = "=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # as in a set of a regular expression
_FORMULA = re.compile(f"'*[{FORMULA_MARKS}]")
_PROTECTED = re.compile(f"'+[{FORMULA_MARKS}]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def protected(cell: str) -> str:
    """The cell with an apostrophe before it where a spreadsheet would compute it."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def unprotected(cell: str) -> str:
    """Inverse of `protected`."""
    return cell[1:] if cell[:1] == "'" and _PROTECTED.match(cell) else cell


class CsvWriter:
    """Rows of CSV, their texts protected.

    Args:
        stream: where they go, a line each.
        show: what else is done to texts.
    """

    def __init__(self, stream: TextIO, show: Callable[[str], str] = str) -> None:
        self._writer, self._show = csv.writer(stream, lineterminator="\n"), show

    def writerow(self, row: Iterable[Any]) -> None:
        """Write one row; None is an empty cell."""
        self._writer.writerow(
            [protected(self._show(cell)) if isinstance(cell, str) else cell for cell in row]
        )

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write several rows."""
        for row in rows:
            self.writerow(row)
