"""Folders of images: where the data set lies in them, its splits and classes, and what is no part of it."""

import posixpath
import re
from collections.abc import Iterable, Sequence

from inception.data.dataset import SPLIT_NAMES, Found, Record
from inception.data.decode import EXTENSIONS
from inception.data.options import ReadOptions
from inception.data.stores import Store
from inception.data.tables import table_records
from inception.errors import DataError

_LABEL_FILES = ("labels.csv", "labels.tsv")
_SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}
_SYNSET_FILE = re.compile(r"(n\d{8})_.+")


def discover(store: Store, options: ReadOptions) -> Found:
    """Labelled images of a store laid out as folders, and what is left over."""
    names = store.names()
    usable = [name for name in names if _is_image(name) or posixpath.basename(name).lower() in _LABEL_FILES]
    usable = [name for name in usable if _junk(name) is None]
    root = _data_root(usable)
    table = next((name for name in usable if name[len(root) :].lower() in _LABEL_FILES), None)
    found = table_records(store, table, options) if table else None
    if found is None:
        table, found = None, Found(_folder_records([name for name in usable if _is_image(name)], root))
    used = {record.path for record in found.records} | {table}
    strays = dict.fromkeys(_junk(name) or name for name in names if name not in used)
    for folder in store.empty_folders():
        strays[_junk(folder) or folder] = None
    if not found.records:
        raise DataError(
            f"{store.location} holds no labelled images: none of its {len(names)} files is an image "
            "in a class folder; give a folder of class folders, an archive of one, or a CSV of path,label."
        )
    return found._replace(strays=tuple(strays))


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
