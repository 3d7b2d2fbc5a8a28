"""The files that a table's path cells mean, where they were written on another machine or without ending."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from urllib.parse import unquote

from inception.data.stores import Store
from inception.errors import DataError

_ELSEWHERE = re.compile(r"([A-Za-z]:)?/|[a-z0-9+.-]+://", re.IGNORECASE)
_SHOWN = 3
MASK_WORDS = {"masks", "mask", "annotations", "trimaps", "segmentations", "segmentation", "labels", "edges"}
"""Folders of pictures that belong to photographs and are none."""


def resolve_paths(cells: Sequence[str], folder: str, store: Store, where: str) -> tuple[list[str], list[str]]:
    """The name in the store of every cell, relative to `folder`, and what is to be said.

    Raises:
        DataError: naming the first files that are not there.
    """
    keys = [_written(cell) for cell in cells]
    names = [posixpath.join(folder, key) for key in keys]
    absent = [place for place, name in enumerate(names) if not _exists(store, name)]
    if not absent:
        return names, []
    for attempt in (_below_a_prefix, _by_name):
        found = attempt([keys[place] for place in absent], folder, store)
        if found is not None:
            for place, name in zip(absent, found[0], strict=True):
                names[place] = name
            return names, [found[1]]
    raise DataError(_refusal([keys[place] for place in absent], where))


def _written(cell: str) -> str:
    """A cell's path with `/`, without the wrappers of labelling tools."""
    key = cell.strip().replace("\\", "/")
    if "/data/local-files/?d=" in key:  # Label Studio
        key = unquote(key.partition("?d=")[2])
    if key.lower().startswith("file://"):
        key = unquote(key[len("file://") :])
    return key if "://" in key else posixpath.normpath(key)


def _exists(store: Store, name: str) -> bool:
    try:
        store.size(name)
    except (DataError, OSError, ValueError):
        return False
    return True


def _below_a_prefix(keys: Sequence[str], folder: str, store: Store) -> tuple[list[str], str] | None:
    """Absolute paths and URLs of another place: all of them below one prefix, without which they are here."""
    if not all(_ELSEWHERE.match(key) for key in keys):
        return None
    parts = keys[0].split("/")
    for depth in range(1, len(parts)):
        prefix = "/".join(parts[:depth]) + "/"
        if not all(key.startswith(prefix) for key in keys):
            return None
        names = [posixpath.join(folder, key[len(prefix) :]) for key in keys]
        if all(_exists(store, name) for name in names):
            return (
                names,
                f"{len(keys)} paths begin with {prefix}, which is not here: they are read without it",
            )
    return None


def _by_name(keys: Sequence[str], folder: str, store: Store) -> tuple[list[str], str] | None:
    """Ids without ending, endings of another case, files below a folder that the table does not name."""
    if any(_ELSEWHERE.match(key) for key in keys):
        return None
    by_key: defaultdict[str, set[str]] = defaultdict(set)
    for name in store.names():
        if folder and not name.startswith(folder.rstrip("/") + "/"):
            continue
        inner = name[len(folder) :].lstrip("/").lower()
        if MASK_WORDS & set(inner.split("/")[:-1]):
            continue
        for whole in {inner, posixpath.basename(inner)}:
            by_key[whole].add(name)
            by_key[posixpath.splitext(whole)[0]].add(name)
    names = []
    for key in keys:
        found = by_key.get(key.lower(), set())
        if len(found) != 1:
            return None
        names.append(next(iter(found)))
    example = names[0]
    return names, f"{len(keys)} names are matched with files by name, such as {keys[0]!r} with {example!r}"


def _refusal(absent: Sequence[str], where: str) -> str:
    more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
    shown = ", ".join(repr(path) for path in absent[:_SHOWN])
    if "://" in absent[0]:
        remedy = "which are not read: fetch the files and give their folder with --root"
        return f"{where} lists URLs ({shown}{more}), {remedy}."
    if _ELSEWHERE.match(absent[0]):
        remedy = "give the folder that holds these files with --root"
        return f"{where} lists paths of another machine ({shown}{more}): {remedy}."
    return f"{where} lists files that do not exist: {shown}{more}; paths are relative to it or to --root."
