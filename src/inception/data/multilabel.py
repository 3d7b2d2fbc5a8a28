"""The labels of a table's cells: one each, several, or none."""

import ast
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

from inception.data.table_columns import METADATA_COLUMNS, plain
from inception.data.table_text import Rows
from inception.errors import DataError

LABELS_COLUMNS = (
    *("labels", "tags", "categories", "classes", "attributes", "findings", "findinglabels", "attributeids"),
    *("labelnames", "classnames", "genres", "targets"),
)
"""A column of this name, in `plain` form, lists an image's labels; an empty cell means none."""
_VALUES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": False}
_UNCERTAIN = {"-1": False, "-1.0": False}
_INDEX_COLUMNS = {"", "index", "id", "unnamed0", "unnamed", "row", "number"}
_MISSING = {"", "nan", "null", "n/a", "na", "#n/a", "<na>", "none"}
_NONE_SHARE = 0.05
_SHOWN = 5
_LONGEST_LIST = 1 << 16

Labels = tuple[str, ...]


def one_label(cells: Sequence[str], lines: Sequence[int], where: str) -> tuple[list[str], list[str]]:
    """The class of every row, "" where it is missing, and what is to be said.

    Missing are empty cells, nan, NULL, N/A and their like; `none` is a class where it is more than a
    twentieth of the rows. Names are in Unicode's composed form (NFC); 0.0 and 1.0 are 0 and 1.
    """
    notes = []
    labels = [unicodedata.normalize("NFC", cell.strip()) for cell in cells]
    if (merged := len({cell.strip() for cell in cells}) - len(set(labels))) > 0:
        notes.append(
            f"{merged} class name(s) in decomposed Unicode (NFD) are the same as composed ones (NFC)"
        )
    nones = [label for label in labels if label.lower() == "none"]
    missing = set(_MISSING)
    if len(nones) > _NONE_SHARE * len(labels):
        missing.discard("none")
        notes.append(f"{nones[0]!r} is taken as a class: {len(nones)} of {len(labels)} rows have it")
    labels = ["" if label.lower() in missing else label for label in labels]
    if any(labels) and all(re.fullmatch(r"-?\d+\.0+", label) for label in labels if label):
        labels = [label.partition(".")[0] for label in labels]
        notes.append("the labels are whole numbers written as floats: 1.0 is the class 1")
    if not any(labels):
        raise DataError(f"{where}: no row has a label; name another column with --label-column.")
    if {label.casefold() for label in labels if label} == {"true", "false"}:
        labels = [label.casefold() for label in labels]
    notes += case_notes(labels)
    return labels, notes


def case_notes(names: Sequence[str]) -> list[str]:
    """A sentence for classes that differ by case only; they stay apart."""
    alike: defaultdict[str, set[str]] = defaultdict(set)
    for name in set(names) - {""}:
        alike[" ".join(name.split()).casefold()].add(name)
    groups = [" and ".join(sorted(group)) for group in alike.values() if len(group) > 1]
    shown = "; ".join(sorted(groups)[:_SHOWN])
    return [f"classes differ by case or spaces only: {shown}; rename them if they are one"] if groups else []


def several_labels(
    columns: Sequence[str], rows: Rows, taken: set[int | None], separator: str, where: str
) -> tuple[list[Labels], list[str]] | None:
    """The labels of every row, and what is to be said; None where no column holds several.

    Either a column of lists (`LABELS_COLUMNS`), or each column whose cells are 0 and 1 is a label.
    """
    places = [place for place, name in enumerate(columns) if plain(name) in LABELS_COLUMNS]
    listed = next((place for place in places if place not in taken), None)
    if listed is not None:
        words = plain(columns[listed]) == "tags"
        cells = [row[listed] for _, row in rows]
        found = listed_labels(cells, separator, certain=True, words=words)
        return (
            None if found is None else (found[0], [*found[1], *_list_notes(columns[listed], cells, found[0])])
        )
    return _one_hot(columns, rows, taken, where)


def _list_notes(column: str, cells: Sequence[str], sets: Sequence[Labels]) -> list[str]:
    """What a column of lists leaves to be said: words for a missing label, one label in each row, case."""
    notes = []
    missing = sum(not labels and bool(cell.strip()) for cell, labels in zip(cells, sets, strict=True))
    if missing:
        words = sorted({cell.strip() for cell, labels in zip(cells, sets, strict=True) if not labels} - {""})
        notes.append(f"{missing} rows have no label ({', '.join(words)})")
    if all(len(labels) < 2 for labels in sets):
        notes.append(
            f"the column {column!r} is read as lists, so that an image may have several labels or none; "
            f"--label-column {column} reads one class each"
        )
    return [*notes, *case_notes([label for labels in sets for label in labels])]


def listed_labels(
    cells: Sequence[str], separator: str, certain: bool, words: bool = False
) -> tuple[list[Labels], list[str]] | None:
    """Cells divided into labels; None where they are single labels, unless `certain` says they are lists.

    Args:
        cells: one of each row.
        separator: what the user says: "none" for whole cells, "" to decide by the cells.
        certain: the column's name says that it holds lists.
        words: the column's name says that spaces divide, as in `tags`.

    Without `certain`, a separator divides only where every part of every cell is also a whole cell, or a part
    of at least two other cells: "tench, Tinca tinca" stays whole.
    """
    if separator == "none":
        return None if not certain else ([_named([cell]) for cell in cells], [])
    if separator:
        return [_named(cell.split(separator)) for cell in cells], []
    if any(cell.strip()[:1] in ("[", "{", "(") for cell in cells):
        parsed = [_literal(cell.strip()) for cell in cells]
        lists = [part for part in parsed if part is not None]
        if len(lists) == len(parsed):
            return lists, ["cells are read as lists of labels"]
    for found, shown in (("|;", "| or ;"), (",", "commas"), ("/", "/"), ("+&", "+ or &"), (" ", "spaces")):
        if not any(letter in cell.strip() for cell in cells for letter in found):
            continue
        usual = found in ("|;", ",") or (found == " " and words)
        divided = [re.split(f"[{re.escape(found)}]", cell) for cell in cells]
        sets = [_named(parts) for parts in divided]
        numbers = found == " " and all(label.isdigit() for labels in sets for label in labels)
        if (certain and usual) or numbers or _parts_recur(cells, sets):
            return sets, [] if certain and found == "|;" else [
                f"cells are divided into labels at {shown}; --label-separator none keeps them whole"
            ]
    if not certain:
        return None
    spaced = any(" " in cell.strip() for cell in cells)
    notes = ["labels with spaces are kept whole; --label-separator ' ' divides them"] if spaced else []
    return [_named([cell]) for cell in cells], notes


def _named(parts: Sequence[str]) -> Labels:
    names = (unicodedata.normalize("NFC", part.strip()) for part in parts)
    return tuple(dict.fromkeys(name for name in names if name.lower() not in _MISSING))


def _parts_recur(cells: Sequence[str], sets: Sequence[Labels]) -> bool:
    whole = {cell.strip() for cell in cells}
    within: defaultdict[str, set[Labels]] = defaultdict(set)
    for labels in sets:
        for label in labels:
            within[label].add(labels)
    return all(
        label in whole or len(within[label]) > 2 for labels in sets if len(labels) > 1 for label in labels
    )


def _literal(cell: str) -> Labels | None:
    """A cell that is a JSON or Python list, or Label Studio's `{"choices": [...]}`."""
    if not cell:
        return ()
    if len(cell) > _LONGEST_LIST:
        return None
    value: object = None
    if re.match(r"\[\s*(['\"]).*\1\s+\1", cell, re.DOTALL):  # an array as NumPy prints it: no commas
        return _named([first or second for first, second in re.findall(r"'([^']*)'|\"([^\"]*)\"", cell)])
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return (cell,) if cell[:1] not in "[{(" else None
    if isinstance(value, dict):
        value = value.get("choices")
    if isinstance(value, str | int):
        value = [value]
    if isinstance(value, set):
        value = sorted(map(str, value))
    if not isinstance(value, list | tuple) or any(isinstance(part, dict | list) for part in value):
        return None
    return _named([str(part) for part in value])


def _one_hot(
    columns: Sequence[str], rows: Rows, taken: set[int | None], where: str
) -> tuple[list[Labels], list[str]] | None:
    known = _VALUES | _UNCERTAIN
    flags, others = [], []
    for place, name in enumerate(columns):
        if place in taken:
            continue
        valid = sum(row[place].strip().lower() in known for _, row in rows)
        full = any(row[place].strip() for _, row in rows)
        if plain(name) in (*_INDEX_COLUMNS, *METADATA_COLUMNS) or not full or 2 * valid < len(rows):
            others.append(name or "without a name")
            continue
        _require_flags(name, place, rows, where)
        flags.append(place)
    if not flags:
        return None
    sets = [tuple(columns[place] for place in flags if known[row[place].strip().lower()]) for _, row in rows]
    if len(flags) == 1 and others:
        return None  # one column of 0 and 1 beside others is no list of labels
    shown = ", ".join(columns[place] for place in flags[:_SHOWN]) + (", …" if len(flags) > _SHOWN else "")
    notes = [f"each column of 0 and 1 is a label, of which an image may have several: {shown}"]
    notes += case_notes([columns[place] for place in flags])
    notes += [f"columns that are not 0 or 1 are left out: {', '.join(others)}"] if others else []
    uncertain = sum(row[place].strip() in _UNCERTAIN for _, row in rows for place in flags)
    if uncertain:
        notes.append(f"{uncertain} uncertain labels (-1) count as absent (0)")
    blank = sum(not row[place].strip() for _, row in rows for place in flags)
    if blank:
        notes.append(f"{blank} blank cells of label columns count as absent (0)")
    return sets, notes


def _require_flags(name: str, place: int, rows: Rows, where: str) -> None:
    for line, row in rows:
        if row[place].strip().lower() not in _VALUES | _UNCERTAIN:
            raise DataError(
                f"{where}, line {line}, has {row[place]!r:.40} in the label column {name!r:.40}; "
                "write 1 where the image has the label and 0 where it has not."
            )


def rarest_first(sets: Sequence[Labels]) -> list[Labels]:
    """Each row's labels, the rarest of the table first."""
    frequency = Counter(label for labels in sets for label in labels)
    return [tuple(sorted(labels, key=lambda label: (frequency[label], label))) for labels in sets]
