"""The text of a table: its encoding, its separator, its rows."""

import codecs
import csv
import io
import re

from inception.errors import DataError

Rows = list[tuple[int, list[str]]]
"""(line number, cells) of every row that is not blank."""

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LONGEST_FIELD = 2**31 - 1
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)


def table_rows(data: bytes, where: str, encoding: str = "") -> Rows:
    """All rows, the header first; `where` names the file in messages.

    Raises:
        DataError: if the text is of another encoding, holds control characters, or has rows that are longer
            or shorter than the header.
    """
    text = _text(data, where, encoding)
    if match := _CONTROL.search(text):
        line = text.count("\n", 0, match.start()) + 1
        raise DataError(
            f"{where}, line {line}, holds the control character {match[0]!r}: it is damaged, or no text."
        )
    delimiter = None
    if match := _SEPARATOR_LINE.match(text):
        delimiter, text = match[1], "\n" + text[match.end() :]
    header = text.lstrip("\r\n").partition("\n")[0]
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or max(",;\t|", key=header.count))
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num}: {error}.") from error
    return _same_length(rows, where)


def _text(data: bytes, where: str, encoding: str) -> str:
    name = encoding or next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(name)
    except LookupError as error:
        raise DataError(f"--encoding {encoding}: there is no encoding of that name; try cp1252.") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "save it as UTF-8, or name its encoding: --encoding cp1252" if not encoding else "try another"
        raise DataError(
            f"{where}, line {line}, is not {(encoding or name).upper()} text ({error.reason}); {hint}."
        ) from error


def _same_length(rows: Rows, where: str) -> Rows:
    """Rows cut to the header's length; empty cells behind it are the trailing separators of spreadsheets."""
    if not rows:
        return rows
    header = rows[0][1]
    count = len(header)
    while count and not header[count - 1].strip() and all(not "".join(row[count - 1 :]) for _, row in rows):
        count -= 1
    for line, row in rows:
        if len(row) < count or any(cell.strip() for cell in row[count:]):
            raise DataError(f"{where}, line {line}, has {len(row)} fields instead of {count}.")
    return [(line, row[:count]) for line, row in rows]
