"""The rows of a table, whatever its form: CSV, a list of paths and labels, JSON Lines, Parquet."""

import codecs
import csv
import io
import json
import posixpath
import re
from collections.abc import Iterable
from typing import Any

from inception.data.csv_text import unprotected
from inception.errors import DataError, UsageError

Rows = list[tuple[int, list[str]]]
"""(line number, cells) of every row that is not blank."""

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".lst", ".jsonl", ".ndjson", ".parquet")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LONGEST_FIELD = 2**31 - 1
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)


def rows_of(data: bytes, table: str, where: str, encoding: str = "") -> Rows:
    """All rows of the file `table`, the header first, where it has one; `where` names it in messages.

    Raises:
        DataError: if the text is of another encoding, holds control characters, or has rows that are longer
            or shorter than the header.
        UsageError: if it is a Parquet file and pyarrow is not installed.
    """
    suffix = posixpath.splitext(table)[1].lower()
    if suffix == ".parquet":
        return _without_controls(_parquet_rows(data, where), where)
    text = _text(data, where, encoding)
    if suffix in (".jsonl", ".ndjson"):
        return _without_controls(_json_rows(text, where), where)
    if match := _CONTROL.search(text):
        raise _control(where, text.count("\n", 0, match.start()) + 1, match[0])
    first = text.lstrip("\r\n").partition("\n")[0]
    if suffix in (".txt", ".lst") and not any(separator in first for separator in ",;\t"):
        listed = _list_rows(text)
        if listed:
            return listed
    return _csv_rows(text, where)


def _without_controls(rows: Rows, where: str) -> Rows:
    for line, cells in rows:
        for cell in cells:
            if match := _CONTROL.search(cell):
                raise _control(where, line, match[0])
    return rows


def _control(where: str, line: int, character: str) -> DataError:
    return DataError(
        f"{where}, line {line}, holds the control character {character!r}: it is damaged, or no text."
    )


def _text(data: bytes, where: str, encoding: str) -> str:
    name = encoding or next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(name)
    except LookupError as error:
        raise UsageError(f"--encoding {encoding}: there is no encoding of that name; try cp1252.") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "save it as UTF-8, or name its encoding: --encoding cp1252" if not encoding else "try another"
        raise DataError(
            f"{where}, line {line}, is not {name.upper()} text ({error.reason}); {hint}."
        ) from error


def _csv_rows(text: str, where: str) -> Rows:
    delimiter = None
    if match := _SEPARATOR_LINE.match(text):
        delimiter, text = match[1], "\n" + text[match.end() :]
    header = text.lstrip("\r\n").partition("\n")[0]
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or max(",;\t|", key=header.count))
    rows: Rows = []
    quoted = "'" in text
    line = 1  # where the row begins: quoted cells may go over several lines
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((line, [unprotected(cell) for cell in row] if quoted else row))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num}: {error}.") from error
    return _same_length(rows, where)


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


def _list_rows(text: str) -> Rows | None:
    """Lines of a path and one or several numbers (Caffe), or of a path and a name; None for other text."""
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and all(len(parts) > 1 and all(map(str.isdigit, parts[1:])) for _, parts in lines):
        if all(len(parts) == 2 for _, parts in lines):
            return [(0, ["path", "label"]), *lines]
        return [
            (0, ["path", "labels"]),
            *((number, [parts[0], ";".join(parts[1:])]) for number, parts in lines),
        ]
    pairs = [(number, line.rsplit(None, 1)) for number, line in enumerate(text.splitlines(), 1)]
    pairs = [(number, parts) for number, parts in pairs if parts]
    return pairs if pairs and all(len(parts) == 2 for _, parts in pairs) else None


def _json_rows(text: str, where: str) -> Rows:
    """JSON Lines as rows: the header is all keys, in the order in which they occur."""
    objects = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}, line {number}, is not JSON ({error}).") from error
        if not isinstance(value, dict):
            raise DataError(f"{where}, line {number}, is not a JSON object.")
        objects.append((number, value))
    return _object_rows(objects)


def _object_rows(objects: Iterable[tuple[int, dict[str, Any]]]) -> Rows:
    listed = list(objects)
    header = list(dict.fromkeys(str(key) for _, value in listed for key in value))
    rows = [(number, [_cell(value.get(key)) for key in header]) for number, value in listed]
    return [(0, header), *rows] if rows else []


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _parquet_rows(data: bytes, where: str) -> Rows:
    """A Parquet file of paths, labels and splits; one that holds the images themselves is refused."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "Parquet files need pyarrow; install it with: pip install 'inception[embed]'"
        ) from error
    try:
        table = parquet.read_table(io.BytesIO(data))
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{where} is not a complete Parquet file ({error}); copy it again.") from error
    for field in table.schema:
        if arrow.types.is_binary(field.type) or arrow.types.is_struct(field.type):
            raise DataError(
                f"{where} holds the images themselves (column {field.name!r}): predict takes them; to train, "
                "save them as files with a table of path,label."
            )
    return _object_rows(enumerate(table.to_pylist(), 1))
