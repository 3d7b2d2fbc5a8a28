"""Tables of images: files whose columns name images, labels and splits."""

import posixpath
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from inception.data.dataset import Found, Record
from inception.data.multilabel import (
    LABELS_COLUMNS,
    Labels,
    listed_labels,
    one_label,
    rarest_first,
    several_labels,
)
from inception.data.options import ReadOptions
from inception.data.stores import FolderStore, Store
from inception.data.table_columns import (
    METADATA_COLUMNS,
    WEAK_LABEL_COLUMNS,
    Columns,
    find_columns,
    plain,
    read_splits,
)
from inception.data.table_paths import resolve_paths
from inception.data.table_text import Rows, rows_of
from inception.errors import DataError

_AUTOML_SPLITS = {"train", "training", "validation", "test", "unassigned"}
_SHOWN = 5
_FEW_ROWS = 4
_LOOKED_AT = 50


def table_records(store: Store, table: str, options: ReadOptions) -> Found | None:
    """The rows of a table in a store, or None if its header names no images and labels.

    Raises:
        DataError: naming the line or the column that is not understood.
    """
    where = f"{store.location}/{table}"
    prefix = str(Path(options.root).resolve()) if options.root else ""
    place: tuple[str, Store] = (posixpath.dirname(table), store)
    if prefix:
        place = ("", FolderStore(Path(prefix)))
    data = store.read(table)
    rows = rows_of(data, table, where, options.encoding)
    rows, guessed = _with_header(rows, *place, options)
    if not rows:
        return None
    if rows[0][0] == 0 and not guessed and table.lower().endswith((".txt", ".lst")):
        guessed = ["there is no header: the columns are taken as path and label"]
    columns = find_columns(rows[0][1], options, where)
    if columns is None:
        return None
    rows = rows[1:]
    columns, more = _guessed_label(columns, rows)
    splits, split_notes = read_splits(columns, rows, options, where)
    read = _read_labels(columns, rows, options, where)
    if read is None:
        return None
    sets, labels, label_notes, used = read
    cells = [row[columns.path] for _, row in rows]
    weak = plain(columns.names[columns.path]) in ("id", "name") and not options.path_column
    if weak and not any(_is_there(cell, *place) for cell in cells[:_LOOKED_AT]):
        return None  # a table of something else
    names, path_notes = resolve_paths(cells, *place, where)
    names = [posixpath.join(prefix, name) for name in names]
    unused = [name for place, name in enumerate(columns.names) if name and place not in used]
    if unused:
        label_notes.append(f"columns that are not used: {', '.join(unused)}")
    found = _records(rows, columns, names, labels, sets, splits, where)
    return found._replace(notes=(*guessed, *more, *split_notes, *label_notes, *path_notes))


def refused_table(where: str, columns: str) -> DataError:
    """The error for a table whose header says too little; `columns` are those it has."""
    return DataError(
        f"{where} needs a column of paths and one of labels, and has the columns {columns}; name them with "
        "--path-column and --label-column. Several labels an image: a column labels (separated by ;) or one "
        "column of 0 and 1 for each label."
    )


def header_of(store: Store, table: str, options: ReadOptions) -> str:
    """The columns of a table, for messages."""
    rows = rows_of(store.read(table), table, f"{store.location}/{table}", options.encoding)
    return ", ".join(repr(name.strip()) for name in rows[0][1][:20]) if rows else "(none)"


def _with_header(rows: Rows, folder: str, store: Store, options: ReadOptions) -> tuple[Rows, list[str]]:
    """The rows below a header: their own, or one made up where the first line is an image already."""
    if not rows or options.path_column or options.label_column:
        return rows, []
    first = rows[0][1]
    automl = len(first) >= 3 and first[0].strip().lower() in _AUTOML_SPLITS
    if automl and "." in posixpath.basename(first[1]):
        header = ["split", "path", *(["label"] if len(first) == 3 else ["labels"])]
        if len(first) > 3:
            rows = [(line, [*row[:2], ";".join(cell for cell in row[2:] if cell)]) for line, row in rows]
        return [(0, header), *rows], ["there is no header: the columns are taken as split, path and label"]
    if len(first) >= 3 and first[0].strip().isdigit() and _is_file(first[-1], folder, store):  # MXNet's .lst
        listed = [(line, [row[-1], ";".join(_whole(cell) for cell in row[1:-1])]) for line, row in rows]
        header = ["path", "label" if len(first) == 3 else "labels"]
        return [(0, header), *listed], ["there is no header: the columns are taken as number, label and path"]
    known = plain(first[0]) in ("path", "file", "filename", "image", "")
    if len(first) == 2 and not known and _is_file(first[0], folder, store):
        return [(0, ["path", "label"]), *rows], [
            "there is no header: the columns are taken as path and label"
        ]
    return rows, []


def _whole(number: str) -> str:
    """A class number as MXNet writes it (2.000000) without its zeros."""
    return number.strip().removesuffix(".000000")


def _is_there(cell: str, folder: str, store: Store) -> bool:
    try:
        resolve_paths([cell], folder, store, "")
    except DataError:
        return False
    return True


def _is_file(cell: str, folder: str, store: Store) -> bool:
    return "." in posixpath.basename(cell) and _is_there(cell, folder, store)


def _guessed_label(columns: Columns, rows: Rows) -> tuple[Columns, list[str]]:
    """The label where no column is called so: one of a weaker name, or the only one that is left.

    Its values must recur, as classes do and captions do not.
    """
    if columns.label is not None or any(plain(name) in LABELS_COLUMNS for name in columns.names):
        return columns, []
    taken = (columns.path, columns.split)
    rest = [
        place
        for place, name in enumerate(columns.names)
        if place not in taken and plain(name) not in METADATA_COLUMNS and plain(name) != "name"
    ]
    weak = [place for place in rest if plain(columns.names[place]) in WEAK_LABEL_COLUMNS]
    chosen = next(iter(weak or (rest if len(rest) == 1 else [])), None)
    if chosen is None or not _recurs([row[chosen].strip() for _, row in rows]):
        return columns, []
    note = f"the column {columns.names[chosen]!r} is taken as the label"
    return replace(columns, label=chosen), [note]


def _recurs(values: Sequence[str]) -> bool:
    distinct = set(values)
    nested = any(value[:1] == "{" and "choices" not in value for value in distinct)
    return not nested and (len(values) < _FEW_ROWS or len(distinct) <= len(values) / 2)


def _read_labels(
    columns: Columns, rows: Rows, options: ReadOptions, where: str
) -> tuple[list[Labels] | None, list[str], list[str], set[int | None]] | None:
    """Sets of labels or None, single labels, what is to be said, and the columns that were used."""
    taken: set[int | None] = {columns.path, columns.split}
    if columns.label is not None:
        cells = [row[columns.label] for _, row in rows]
        taken.add(columns.label)
        several = listed_labels(cells, options.label_separator, certain=False)
        if several is None:
            labels, notes = one_label(cells, [line for line, _ in rows], where)
            return None, labels, notes, taken
    else:
        several = several_labels(columns.names, rows, taken, options.label_separator, where)
        if several is None:
            return None
        lists = {place for place, name in enumerate(columns.names) if plain(name) in LABELS_COLUMNS}
        taken |= lists or set(range(len(columns.names)))  # one column a label: the others are named already
    sets = rarest_first(several[0])
    return sets, [next(iter(labels), "") for labels in sets], list(several[1]), taken


def _records(
    rows: Rows,
    columns: Columns,
    names: Sequence[str],
    labels: Sequence[str],
    sets: Sequence[Labels] | None,
    splits: Sequence[str | None],
    where: str,
) -> Found:
    records: dict[str, Record] = {}
    missing: list[tuple[int, str]] = []
    for number, (line, row) in enumerate(rows):
        if sets is None and not labels[number]:
            missing.append((line, names[number]))
            continue
        key = posixpath.normpath(row[columns.path].strip().replace("\\", "/"))
        several = None if sets is None else sets[number]
        record = Record(names[number], labels[number], splits[number], key, several)
        if records.setdefault(key, record) != record:
            raise DataError(f"{where}, line {line}, lists {key!r} again with another label or split.")
    left_out = {}
    if missing:
        lines = ", ".join(str(line) for line, _ in missing[:_SHOWN]) + (
            ", …" if len(missing) > _SHOWN else ""
        )
        left_out[f"no label (line {lines})"] = tuple(name for _, name in missing)
    return Found(list(records.values()), left_out=left_out)
