"""Opening a data set from whatever the user has: folders, archives, CSV files or a named set."""

import csv
import difflib
import io
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from inception.data.archives import open_archive
from inception.data.dataset import SPLIT_NAMES, Dataset, Record, Sample, align_labels, build_dataset
from inception.data.decode import EXTENSIONS
from inception.data.download import Progress
from inception.data.multilabel import label_sets
from inception.data.named import NAMED_SETS, open_named
from inception.data.stores import FolderStore, Store
from inception.data.webdataset import find_shards, open_shards
from inception.errors import DataError, UsageError

__all__ = ["Dataset", "Sample", "align_labels", "open_dataset"]

_PATH_COLUMNS = ("path", "file", "filename", "image")
_LABEL_COLUMNS = ("label", "class", "synset", "category")
_LABEL_FILES = ("labels.csv", "labels.tsv")
_TABLE_SUFFIXES = (".csv", ".tsv")
_SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}
_SYNSET_FILE = re.compile(r"(n\d{8})_.+")
_SHOWN = 3


def open_dataset(
    spec: str | Path,
    *,
    data_root: Path | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Open a data set; nothing is decoded yet.

    `spec` is one of

    - a folder, zip or tar of class folders, below `train/`, `val/` (or `valid`, `validation`) and `test/`
      or not; a single folder around all of it is entered;
    - the same holding a `labels.csv` (or `.tsv`), or flat files named `<synset>_<name>.<extension>`;
    - a CSV or TSV with a header: a path column (path, file, filename, image; relative to the CSV), a label
      column (label, class, synset, category) and perhaps a split column; with a column `labels`, or a column
      of 0 and 1 for each label, an image may have several (see `multilabel.label_sets`);
    - a folder of tar shards (or one of them) in WebDataset's layout: `inception.data.webdataset`;
    - the name of a set in `NAMED_SETS` (write `./digits` for a folder of that name).

    Where "val" or "test" is missing, see `build_dataset`.

    Args:
        spec: see above.
        data_root: where named sets are kept; default `$INCEPTION_DATA` or `~/.cache/inception/data`.
        val_fraction: share of each class for "val", and for "test" if there is neither.
        seed: of the automatic split.
        progress: called while a named set is downloaded, with the bytes of the file so far and in all.

    Raises:
        DownloadError: if a named set has to be downloaded and cannot be.
        UsageError: if `spec` is neither a path nor a named set.
        DataError: if what is there is not a usable data set.
    """
    if str(spec) in NAMED_SETS:
        return open_named(
            str(spec), data_root=data_root, val_fraction=val_fraction, seed=seed, progress=progress
        )
    path = Path(spec).expanduser()
    if not path.exists():
        raise _nothing_there(str(spec))
    if shards := find_shards(path):
        return open_shards(path, shards, val_fraction=val_fraction, seed=seed)
    strays: list[str] = []
    store: Store
    if path.suffix.lower() in _TABLE_SUFFIXES:
        store = FolderStore(path.parent)
        found = _table_records(store, path.name)
        if found is None:
            raise DataError(
                f"{path} needs a header with a path column ({', '.join(_PATH_COLUMNS)}) "
                f"and a label column ({', '.join(_LABEL_COLUMNS)}), or for several labels an image a column "
                "labels (separated by ;) or one column of 0 and 1 for each label."
            )
        records = found
    else:
        store = FolderStore(path) if path.is_dir() else open_archive(path)
        records, strays = _discover(store)
    return build_dataset(path.stem, records, store, strays=strays, val_fraction=val_fraction, seed=seed)


def _nothing_there(spec: str) -> UsageError:
    near = difflib.get_close_matches(spec, NAMED_SETS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"named sets are {', '.join(NAMED_SETS)}."
    return UsageError(f"There is no file or folder {spec!r}, and no data set of that name; {hint}")


def _discover(store: Store) -> tuple[list[Record], list[str]]:
    """Labelled images of a store laid out as folders, and what is left over."""
    names = store.names()
    usable = [name for name in names if _is_image(name) or posixpath.basename(name).lower() in _LABEL_FILES]
    usable = [name for name in usable if _junk(name) is None]
    root = _data_root(usable)
    table = next((name for name in usable if name[len(root) :].lower() in _LABEL_FILES), None)
    listed = _table_records(store, table) if table else None
    if listed is None:
        table, listed = None, _folder_records([name for name in usable if _is_image(name)], root)
    used = {record.path for record in listed} | {table}
    strays = dict.fromkeys(_junk(name) or name for name in names if name not in used)
    for folder in store.empty_folders():
        strays[_junk(folder) or folder] = None
    if not listed:
        raise DataError(
            f"{store.location} holds no labelled images: none of its {len(names)} files is an image "
            "in a class folder; give a folder of class folders, an archive of one, or a CSV of path,label."
        )
    return listed, list(strays)


def _is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in EXTENSIONS


def _junk(name: str) -> str | None:
    """The hidden or system file or folder that `name` is or lies in, or None."""
    parts = name.split("/")
    for depth, part in enumerate(parts):
        if part.startswith(".") or part.lower() in _SYSTEM_FILES:
            return "/".join(parts[: depth + 1])
    return None


def _data_root(names: Sequence[str]) -> str:
    """The prefix (empty or ending in `/`) below which the data set proper lies."""
    root = ""
    while names:
        tops = {name.partition("/")[0] for name in names}
        top = next(iter(tops))
        inner = [name[len(top) + 1 :] for name in names]
        enterable = any(
            "/" in name or name.lower() in _LABEL_FILES or _SYNSET_FILE.match(name) for name in inner
        )
        if len(tops) > 1 or "" in inner or top.lower() in SPLIT_NAMES or not enterable:
            break
        root, names = f"{root}{top}/", inner
    return root


def _folder_records(images: Iterable[str], root: str) -> list[Record]:
    keys = [name[len(root) :] for name in images]
    by_split: dict[str, list[str]] = {}
    for key in keys:
        top, _, inner = key.partition("/")
        if top.lower() in SPLIT_NAMES and ("/" in inner or _SYNSET_FILE.match(inner)):
            by_split.setdefault(top, []).append(inner)
    if not by_split:
        return [Record(root + key, label, None, key) for key, label in _labelled(keys)]
    records = []
    for top, inners in by_split.items():
        split = SPLIT_NAMES[top.lower()]
        for inner, label in _labelled(inners):
            records.append(Record(f"{root}{top}/{inner}", label, split, f"{top}/{inner}"))
    return records


def _labelled(keys: Sequence[str]) -> list[tuple[str, str]]:
    """Paths with their class: the first folder, or without any folders the synset that begins the name."""
    foldered = [(key, key.partition("/")[0]) for key in keys if "/" in key]
    if foldered:
        return foldered
    return [(key, match[1]) for key in keys if (match := _SYNSET_FILE.match(key))]


def _table_records(store: Store, table: str) -> list[Record] | None:
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
        _column(columns, names) for names in (_PATH_COLUMNS, _LABEL_COLUMNS, ("split",))
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
    return list(records.values())


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
