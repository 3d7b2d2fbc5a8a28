"""Which column of a table is the path, the label and the split, by the names that many tools write."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from inception.data.options import ReadOptions
from inception.data.split_names import SPLIT_OF_WORD, split_named
from inception.data.table_text import Rows
from inception.errors import DataError, UsageError

PATH_COLUMNS = (
    *("path", "file", "filename", "image", "filepath", "imagepath", "imagefile", "imagename", "imageid"),
    *(
        "img",
        "imgpath",
        "imgname",
        "imgid",
        "imagefilename",
        "relpath",
        "fname",
        "photo",
        "picture",
        "idcode",
    ),
    *("imageuri", "gcsuri", "imagegcsuri", "sourceref", "imageurl", "imageindex", "url", "uri", "name", "id"),
)
LABEL_COLUMNS = (
    *("label", "class", "synset", "category", "classname", "labelname", "categoryname", "classlabel"),
    *("classid", "labelid", "categoryid", "species", "breed", "emotion", "expression", "diagnosis", "dx"),
    *("choice", "classificationannotationdisplayname"),
)
WEAK_LABEL_COLUMNS = ("target", "text", "y")
"""Names that also stand for other things: taken only where no better column is there and labels recur."""
METADATA_COLUMNS = (
    *("", "index", "unnamed0", "annotator", "annotationid", "createdat", "updatedat", "leadtime", "width"),
    *("height", "xmin", "ymin", "xmax", "ymax"),
)
"""What labelling tools write beside labels."""
SPLIT_COLUMNS = (
    *("split", "set", "subset", "partition", "usage", "phase", "dataset", "datasplit", "splitset", "fold"),
    *("kfold", "istraining", "istrain", "isvalid", "isval", "isvalidation", "istest", "istesting"),
)
_FOLDS = {"fold", "folds", "kfold", "cv", "split", "subset", "partition", "usage", "phase", "划分"}
_OTHER = {"train": "test", "val": "train", "test": "train"}
"""What 0 stands for in a column that says with 1 that an image is in a split."""
_TRUE, _FALSE = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}
_SHOWN = 5


@dataclass(frozen=True)
class Columns:
    """The header of a table, and where in it the path, the single label and the split are."""

    names: tuple[str, ...]
    path: int
    label: int | None
    split: int | None


def plain(name: str) -> str:
    """A column's name without case, spaces and punctuation: "Image ID" and `image_id` are the same."""
    return re.sub(r"[\W_]+", "", name).lower()


def find_columns(header: Sequence[str], options: ReadOptions, where: str) -> Columns | None:
    """The columns of a header; None where none names the images.

    Raises:
        UsageError: if an option names a column that is not there.
    """
    names = tuple(name.strip() for name in header)
    plains = [plain(name) for name in names]
    path = _asked(names, options.path_column, "--path-column", where)
    label = _asked(names, options.label_column, "--label-column", where)
    split = None
    if options.split_column != "none":
        split = _asked(names, options.split_column, "--split-column", where)
        if split is None:
            split = _first(plains, SPLIT_COLUMNS, {path, label})
        if split is None:
            split = next((place for place, name in enumerate(names) if _words(name) & _FOLDS), None)
    if path is None:
        path = _first(plains, PATH_COLUMNS, {label, split})
    if path is None:
        return None
    if label is None:
        label = _first(plains, LABEL_COLUMNS, {path, split})
    if label is None:
        ending = (place for place, name in enumerate(plains) if name.endswith("metadataclassname"))
        label = next(ending, None)  # Amazon's manifests: <job>-metadata.class-name
    return Columns(names, path, label, split)


def _asked(names: Sequence[str], wanted: str, option: str, where: str) -> int | None:
    if not wanted:
        return None
    if wanted not in names:
        raise UsageError(f"{option} {wanted}: the columns of {where} are {', '.join(names)}")
    return names.index(wanted)


def _first(plains: Sequence[str], known: Sequence[str], taken: set[int | None]) -> int | None:
    places = (plains.index(name) for name in known if name in plains)
    return next((place for place in places if place not in taken), None)


def read_splits(
    columns: Columns, rows: Rows, options: ReadOptions, where: str
) -> tuple[list[str | None], list[str]]:
    """The split of every row, and how the column was read.

    Raises:
        DataError: if a column that is called like a split, or holds splits, is not understood.
    """
    if columns.split is None:
        _refuse_hidden_split(columns, rows, options, where)
        return [None] * len(rows), []
    name, values = columns.names[columns.split], [row[columns.split].strip() for _, row in rows]
    given = Counter(values)
    if {value.lower() for value in given} == {"unassigned"}:  # Google AutoML: drawn by the tool
        return [None] * len(rows), []
    means = _flag_meanings(name, given) or _fold_meanings(name, given, options, where)
    if means is None:
        means = {value: split for value in given if (split := split_named(value)) is not None}
        means |= {value: "train" for value in given if value.lower() == "unassigned"}
    unknown = [(line, value) for (line, _), value in zip(rows, values, strict=True) if value not in means]
    if unknown:
        shown = ", ".join(f"line {line} {value!r:.40}" for line, value in unknown[:_SHOWN])
        raise DataError(
            f"{where}: the column {name!r} looks like the split, but {len(unknown)} of {len(rows)} rows name "
            f"neither train, val nor test ({shown}); correct them, or give --split-column none to ignore it."
        )
    readings = [f"{value}: {means[value]} ({count})" for value, count in given.items()]
    usual = all(value == split for value, split in means.items())
    notes = [] if usual else [f"the column {name!r} is read as the split: {', '.join(readings)}"]
    return [means[value] for value in values], notes


def _flag_meanings(name: str, given: Counter[str]) -> dict[str, str] | None:
    """What 1 and 0 stand for in a column such as `is_valid`."""
    split = _flagged_split(name)
    if split is None or not all(value.lower() in _TRUE | _FALSE for value in given):
        return None
    return {value: split if value.lower() in _TRUE else _OTHER[split] for value in given}


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def _flagged_split(name: str) -> str | None:
    """The one split that a column's name speaks of: `is_valid`, `istest`, `in_test`, `train`."""
    words = _words(name) | {word.removeprefix("is") for word in _words(name)}
    found = {SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD}
    return found.pop() if len(found) == 1 else None


def _fold_meanings(name: str, given: Counter[str], options: ReadOptions, where: str) -> dict[str, str] | None:
    chosen = {options.val_fold: "val", options.test_fold: "test"}
    chosen.pop("", None)
    if not chosen:
        if all(re.fullmatch(r"-?\d+(\.0)?", value) for value in given):
            folds = ", ".join(sorted(given)[:_SHOWN]) + (", …" if len(given) > _SHOWN else "")
            raise DataError(
                f"{where}: the column {name!r} holds the folds {folds}; "
                "say which is val with --val-fold N (and --test-fold M), or --split-column none to ignore it."
            )
        return None
    if missing := [fold for fold in chosen if fold not in given]:
        raise DataError(f"{where}: the column {name!r} has no fold {missing[0]!r}, only {', '.join(given)}.")
    return {value: chosen.get(value, "train") for value in given}


def _refuse_hidden_split(columns: Columns, rows: Rows, options: ReadOptions, where: str) -> None:
    if options.split_column == "none":
        return
    for place, name in enumerate(columns.names):
        if place in (columns.path, columns.label):
            continue
        values = {row[place].strip() for _, row in rows}
        if _flagged_split(name) and values and all(value.lower() in _TRUE | _FALSE for value in values):
            raise DataError(
                f"{where}: the column {name!r} holds {', '.join(sorted(values))} and is called like a split; "
                f"give --split-column {name!r} to use it, or --split-column none if it is none."
            )
        if 1 < len(values) <= _SHOWN and all(split_named(value) for value in values):
            raise DataError(
                f"{where}: the column {name!r} holds {', '.join(sorted(values))}, which look like splits; "
                f"give --split-column {name!r} to use it, or --split-column none to ignore it."
            )
