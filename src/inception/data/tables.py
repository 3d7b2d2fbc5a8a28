"""Tables of images: a CSV or TSV whose columns name files, labels and splits."""

import csv
import io
import posixpath
from collections.abc import Iterable, Sequence

from inception.data.dataset import SPLIT_NAMES, Found, Record
from inception.data.multilabel import label_sets
from inception.data.options import ReadOptions
from inception.data.stores import Store
from inception.errors import DataError

PATH_COLUMNS = ("path", "file", "filename", "image")
LABEL_COLUMNS = ("label", "class", "synset", "category")
TABLE_SUFFIXES = (".csv", ".tsv")
_SHOWN = 3


def table_records(store: Store, table: str, options: ReadOptions) -> Found | None:
    """The rows of a CSV in a store, or None if its header has no path and label columns."""
    where = f"{store.location}/{table}"
    try:
        text = store.read(table).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text ({error.reason}); save it as UTF-8.") from error
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num}: {error}.") from error
    header_cells = [column.strip() for column in rows[0][1]] if rows else []
    columns = [column.lower() for column in header_cells]
    path_at, label_at, split_at = (
        _column(columns, names) for names in (PATH_COLUMNS, LABEL_COLUMNS, ("split",))
    )
    if path_at is None:
        return None
    for line, row in rows[1:]:
        if len(row) != len(columns):
            raise DataError(f"{where}, line {line}, has {len(row)} fields instead of {len(columns)}.")
    sets = None
    if label_at is None:
        sets = label_sets(header_cells, rows[1:], (columns[path_at], "split"), where)
        if sets is None:
            return None
    records: dict[str, Record] = {}
    for number, (line, row) in enumerate(rows[1:]):
        labels = None if sets is None else sets[number]
        label = row[label_at].strip() if label_at is not None else next(iter(labels or ()), "")
        split = None if split_at is None else SPLIT_NAMES.get(row[split_at].strip().lower())
        if (not label and labels is None) or (split is None and split_at is not None):
            raise DataError(
                f"{where}, line {line}, needs a label and, where there is a split column, train, val or test."
            )
        key = posixpath.normpath(row[path_at].strip().replace("\\", "/"))
        record = Record(posixpath.join(posixpath.dirname(table), key), label, split, key, labels)
        if records.setdefault(key, record) != record:
            raise DataError(f"{where}, line {line}, lists {key!r} again with another label or split.")
    _require_files(store, where, records.values())
    return Found(list(records.values()))


def _column(columns: Sequence[str], names: Sequence[str]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


def _require_files(store: Store, where: str, records: Iterable[Record]) -> None:
    absent = []
    for record in records:
        try:
            store.size(record.path)
        except DataError:
            absent.append(record.path)
    if absent:
        more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
        shown = ", ".join(repr(path) for path in absent[:_SHOWN])
        raise DataError(f"{where} lists files that do not exist: {shown}{more}; paths are relative to it.")
