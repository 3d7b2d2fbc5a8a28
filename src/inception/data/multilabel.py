"""Several labels an image, or none: how a table says so."""

from collections import Counter
from collections.abc import Sequence

from inception.errors import DataError

LABELS_COLUMNS = ("labels", "tags")
"""A column of this name lists an image's labels, separated by `;` or `|`; an empty cell means none."""
_VALUES = {"0": False, "1": True, "false": False, "true": True}

Labels = tuple[str, ...]


def label_sets(
    columns: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]], known: Sequence[str], where: str
) -> list[Labels] | None:
    """The labels of every row, the rarest first, or None when the header is not that of such a table.

    Two forms are understood: one column `labels` (or `tags`) of names separated by `;` or `|`; or, where
    there is none, every column but the `known` ones a label, with 0 or 1 (false, true) in each cell.

    Args:
        columns: the header, in lower case for the `known` names only.
        rows: (line number, cells), as many cells as columns.
        known: columns that are no labels (path, split).
        where: file name for messages.

    Raises:
        DataError: naming the line whose cell is neither 0 nor 1.
    """
    listed = next((index for index, name in enumerate(columns) if name.lower() in LABELS_COLUMNS), None)
    if listed is not None:
        sets = [_split(row[listed]) for _, row in rows]
    else:
        flags = [index for index, name in enumerate(columns) if name.lower() not in known]
        if not flags or not all(
            cells[index].strip().lower() in _VALUES for _, cells in rows[:1] for index in flags
        ):
            return None
        sets = [_flagged(columns, flags, line, cells, where) for line, cells in rows]
    frequency = Counter(label for labels in sets for label in labels)
    return [tuple(sorted(labels, key=lambda label: (frequency[label], label))) for labels in sets]


def _split(cell: str) -> Labels:
    names = (name.strip() for name in cell.replace("|", ";").split(";"))
    return tuple(dict.fromkeys(name for name in names if name))


def _flagged(
    columns: Sequence[str], flags: Sequence[int], line: int, cells: Sequence[str], where: str
) -> Labels:
    found = []
    for index in flags:
        value = _VALUES.get(cells[index].strip().lower())
        if value is None:
            raise DataError(
                f"{where}, line {line}, has {cells[index]!r:.40} in the label column {columns[index]!r:.40}; "
                "write 1 where the image has the label and 0 where it has not."
            )
        if value:
            found.append(columns[index])
    return tuple(found)
