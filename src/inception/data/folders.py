"""Folders of images: where the data set lies in them, its splits and classes, and what is no part of it."""

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from inception.data.dataset import UNLABELLED, Found, Record
from inception.data.decode import EXTENSIONS, sniff_format
from inception.data.formats import HEAD_BYTES, left_out_by_content, left_out_reason
from inception.data.multilabel import case_notes
from inception.data.not_classes import CONTAINERS, list_notes, people_note, refuse_parts, set_aside
from inception.data.options import ReadOptions
from inception.data.split_names import SPLIT_OF_WORD, is_unlabelled, split_named, splits_of
from inception.data.stores import FolderStore, Store
from inception.data.tables import table_records
from inception.errors import DataError, ImageError, UsageError

_LABEL_FILES = ("labels.csv", "labels.tsv", "metadata.csv", "metadata.jsonl", "_classes.csv")
_SYSTEM = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "__pycache__", "$recycle.bin", "recycler"}
_SYSTEM |= {"system volume information", "lost+found", "@eadir", "#recycle", "@recycle", "#snapshot"}
_SYSTEM |= {"@sharebin", "icloud~", "onedrivetemp", "$sysreset", "found.000", "lost.dir"}
_SYNSET_FILE = re.compile(r"(n\d{8})_.+")
_PLAIN_NAMES = {"readme", "license", "copying", "makefile", "notice", "authors"}
_ANNOTATIONS = "val_annotations.txt"
_PATTERNS = (
    (re.compile(r"(n\d{8})_[^/]+$"), r"(n\d{8})_"),
    (re.compile(r"[A-Za-z][A-Za-z ]*\.\d+\.[^./]+$"), r"^([A-Za-z ]+)\.\d+"),
    (re.compile(r"[A-Za-z][A-Za-z _-]*[_ -]\(?\d+\)?\.[^./]+$"), r"^(.+?)[_ -]+\(?\d+\)?\."),
    (re.compile(r"[A-Za-z]+\d+\.[^./]+$"), r"^([A-Za-z]+)\d+\."),
)
_NOT_IN_CLASS = "in no class folder"
_IRREGULAR = "no regular file: a link to nothing, a pipe or a device"


def discover(store: Store, options: ReadOptions) -> Found:
    """Labelled images of a store laid out as folders, what is left out, and what is no part of it."""
    names = store.names()
    usable = [name for name in names if _junk(name) is None]
    images: list[str] = []
    others: list[str] = []
    unread: defaultdict[str, list[str]] = defaultdict(list)
    for name in usable:
        known = _is_image(name)
        head = b"" if known else head_without_ending(store, name)
        if known or sniff_format(head):
            images.append(name)
        elif reason := left_out_reason(name) or left_out_by_content(head):
            unread[reason].append(name)
        else:
            others.append(name)
    tables = [name for name in others if posixpath.basename(name).lower() in _LABEL_FILES]
    root = _data_root([*images, *tables])
    listed, found = ([], None) if options.label_from else _tables(store, tables, root, options)
    if found is None:
        try:
            found = _folders(store, images, root, options)
        except DataError as error:
            raise DataError(_tables_beside(store, others) or str(error)) from error
        if found.records and all(record.split is None for record in found.records):
            found = found._replace(notes=(*found.notes, *list_notes(others)))
    found = found._replace(
        left_out={**found.left_out, **{why: tuple(paths) for why, paths in unread.items()}}
    )
    if isinstance(store, FolderStore) and (broken := [n for n in store.irregular() if _junk(n) is None]):
        found = found._replace(left_out={**found.left_out, _IRREGULAR: tuple(broken)})
    used = {record.path for record in found.records} | set(listed)
    used.update(path for paths in found.left_out.values() for path in paths)
    strays = dict.fromkeys(_junk(name) or name for name in names if name not in used)
    for folder in store.empty_folders():
        strays[_junk(folder) or folder] = None
    if not found.records:
        raise DataError(_nothing_labelled(store, names, images, others, root))
    return found._replace(strays=tuple(strays))


def _tables(
    store: Store, tables: Sequence[str], root: str, options: ReadOptions
) -> tuple[list[str], Found | None]:
    """The tables that list the images, and what they list: one at the root, or one in each split folder."""
    top = next((name for name in tables if name[len(root) :].lower() in _LABEL_FILES), None)
    if top is not None:
        found = table_records(store, top, options)
        return ([top], found) if found else ([], None)
    inner = {name: posixpath.dirname(name[len(root) :]) for name in tables}
    splits = splits_of(inner.values()) if inner else None
    if splits is None or len(set(inner.values())) < len(inner):
        return [], None
    records, notes = [], []
    for name, folder in inner.items():
        part = table_records(store, name, options)
        if part is None:
            return [], None
        records += [
            record._replace(split=splits[folder], key=f"{folder}/{record.key}") for record in part.records
        ]
        notes += [note for note in part.notes if note not in notes]
    return list(inner), Found(records, (), tuple(notes))


def _tables_beside(store: Store, others: Sequence[str]) -> str:
    """What to say where no class folders are found, but tables; empty where there are none."""
    beside = [name for name in others if name.lower().endswith((".csv", ".tsv", ".jsonl", ".parquet"))]
    if not beside:
        return ""
    return (
        f"{store.location} has no class folders, but tables: {', '.join(beside[:3])}. Give the one that "
        "lists the images instead of the folder, with --root FOLDER if its paths begin elsewhere."
    )


def _nothing_labelled(
    store: Store, names: Sequence[str], images: Sequence[str], others: Sequence[str], root: str
) -> str:
    if beside := _tables_beside(store, others):
        return beside
    hint = _pattern_hint([name[len(root) :] for name in images])
    if hint:
        return f"{store.location} has no class folders{hint}."
    return (
        f"{store.location} holds no labelled images: none of its {len(names)} files is an image "
        "in a class folder; give a folder of class folders, an archive of one, a CSV of path,label, or "
        "--label-from PATTERN."
    )


def _pattern_hint(keys: Sequence[str]) -> str:
    """What names look like, and the pattern that would take the class from them; empty where none fits."""
    for shape, pattern in _PATTERNS:
        fitting = [key for key in map(posixpath.basename, keys) if shape.match(key)]
        if len(fitting) >= 0.9 * len(keys) and _names_classes(fitting, pattern):
            taken = f"--label-from '{pattern}' takes the class from them"
            return f", and its names look like {fitting[0]!r}: {taken}; or give a CSV of path,label"
    return ""


def _names_classes(names: Sequence[str], pattern: str) -> bool:
    """Whether a pattern takes several names that are no splits."""
    found = {label for label in _by_pattern(names, pattern) if label}
    return len(found) > 1 and splits_of(found) is None


def _is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in EXTENSIONS


def head_without_ending(store: Store, name: str) -> bytes:
    """How a file without an ending begins; empty for other files, which are not opened.

    A number at the end is none: `1.2.840.113619.2.5` is how DICOM's tools call their files.
    """
    base = posixpath.basename(name)
    _, dot, ending = base.rpartition(".")
    if (dot and not ending.isdecimal()) or base.lower() in _PLAIN_NAMES:
        return b""
    try:
        return store.head(name, HEAD_BYTES)
    except DataError:
        return b""


def _junk(name: str) -> str | None:
    """The hidden or system file or folder that `name` is or lies in, or None."""
    parts = name.split("/")
    for depth, part in enumerate(parts):
        if part.startswith(".") or part.lower() in _SYSTEM:
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
        if len(tops) > 1 or "" in inner or (split_named(top) and not _holds_splits(inner)) or not enterable:
            break
        root, names = f"{root}{top}/", inner
    return root


def _holds_splits(inner: Iterable[str]) -> bool:
    tops = {name.partition("/")[0] for name in inner if "/" in name}
    return len(tops) > 1 and splits_of(tops) is not None


def _folders(store: Store, images: Sequence[str], root: str, options: ReadOptions) -> Found:
    keys, aside = set_aside([name[len(root) :] for name in images])
    splits, notes = _split_folders(keys, options)
    if not splits:
        refuse_parts({key.partition("/")[0] for key in keys if "/" in key})
    by_top: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        top, slash, _ = key.partition("/")
        by_top[top if slash and top in splits else ""].append(key)
    labelled: list[tuple[str, str, str | None]] = []
    left_out: defaultdict[str, list[str]] = defaultdict(list, aside)
    for top, inside in by_top.items():
        if not top and splits:
            for key in inside:
                left_out[_reason_beside_splits(key)].append(key)
            continue
        prefix = f"{top}/" if top else ""
        inner, skipped = _undoubled([key[len(prefix) :] for key in inside], top, splits.get(top))
        classes, more = _classes(store, root + prefix + skipped, inner, options)
        notes += [note for note in more if note not in notes]
        for key, label in zip(inner, classes, strict=True):
            whole = prefix + skipped + key
            if label is None:
                left_out[UNLABELLED if splits else _NOT_IN_CLASS].append(whole)
            else:
                labelled.append((whole, label, splits.get(top)))
    labelled, more = _inner_splits(labelled) if not splits else (labelled, [])
    names, merged = _readable({label for _, label, _ in labelled})
    records = [Record(root + key, names[label], split, key) for key, label, split in labelled]
    notes += [*more, *merged, *people_note(names.values()), *case_notes(sorted(set(names.values())))]
    paths = {reason: tuple(root + key for key in found) for reason, found in left_out.items()}
    return Found(records, (), tuple(notes), paths)


def _split_folders(keys: Sequence[str], options: ReadOptions) -> tuple[dict[str, str], list[str]]:
    """Top folder -> split, where top folders are splits, and what is said of names that are no usual ones.

    They are where all of them are called so, or where some are and hold folders.
    """
    holding: dict[str, bool] = {}
    for key in keys:
        top, slash, inner = key.partition("/")
        if slash:
            holding[top] = holding.get(top, False) or "/" in inner or bool(_SYNSET_FILE.match(inner))
    every = splits_of(holding)
    if every is not None and (any(holding.values()) or options.label_from):
        unusual = {top: split for top, split in every.items() if top.lower() not in SPLIT_OF_WORD}
        said = ", ".join(f"{top!r} is {split}" for top, split in sorted(unusual.items()))
        return every, [f"the top folders are splits: {said}"] if unusual else []
    if every is not None:
        # Only the training images' names hold classes in many competitions (`test1/17.jpg`).
        training = [key for key in keys if every.get(key.partition("/")[0]) == "train"]
        hint = (
            _pattern_hint(training or keys)
            or "; --label-from PATTERN takes classes from names, or give a CSV"
        )
        raise DataError(
            f"{', '.join(sorted(holding))}: called like a split, without class folders inside{hint}; "
            "rename what is a class."
        )
    some = {top: split for top, deep in holding.items() if deep and (split := split_named(top)) is not None}
    named = [f"{top!r} is {split}" for top, split in some.items() if top.lower() not in SPLIT_OF_WORD]
    return some, [f"of the top folders, these are splits: {', '.join(sorted(named))}"] if named else []


def _reason_beside_splits(key: str) -> str:
    """Why an image that is in none of the folders of splits is left out."""
    folders = key.split("/")[:-1]
    if len(set(folders) - CONTAINERS) < 2 or is_unlabelled(folders[0]):
        return UNLABELLED
    return (
        f"in {folders[0]!r}, which is called like no split: rename it to train, val or test, or take it away"
    )


def _undoubled(inner: Sequence[str], outer: str, split: str | None) -> tuple[list[str], str]:
    """Keys without a folder around all of them that is the split once more (`seg_train/seg_train/`)."""
    tops = {key.partition("/")[0] for key in inner}
    top = next(iter(tops), "")
    if split and len(tops) == 1 and (top == outer or split_named(top) == split) and top != "":
        return [key[len(top) + 1 :] for key in inner], f"{top}/"
    return list(inner), ""


def _classes(
    store: Store, prefix: str, keys: Sequence[str], options: ReadOptions
) -> tuple[list[str | None], list[str]]:
    """The class of every key below `prefix`, None where it has none, and what is to be said."""
    if options.label_from:
        return _by_pattern(keys, options.label_from), []
    foldered = [key for key in keys if "/" in key]
    if not foldered:
        found = [_SYNSET_FILE.match(key) for key in keys]
        return [match[1] if match else None for match in found], []
    tops = {key.partition("/")[0] for key in foldered}
    if tops <= {"images"}:
        listed = _annotations(store, prefix)
        return [listed.get(posixpath.basename(key)) for key in keys], []
    if options.classes == "leaf":
        return [posixpath.basename(posixpath.dirname(key)) or None for key in keys], []
    return [key.partition("/")[0] if "/" in key else None for key in keys], _levels(foldered, options)


def _annotations(store: Store, prefix: str) -> dict[str, str]:
    """Tiny-ImageNet's list of the classes of its validation images: file, class and box, tab-separated."""
    try:
        text = store.read(prefix + _ANNOTATIONS).decode("utf-8", "replace")
    except (DataError, ImageError):
        return {}
    rows = (line.split("\t") for line in text.splitlines())
    return {row[0]: row[1] for row in rows if len(row) > 1}


def _levels(keys: Sequence[str], options: ReadOptions) -> list[str]:
    """A sentence where class folders hold several folders each."""
    inner: defaultdict[str, set[str]] = defaultdict(set)
    for key in keys:
        if key.count("/") > 1:
            parts = key.split("/")
            inner[parts[0]].add(parts[-2])
    folders = {name for names in inner.values() for name in names}
    divided = {split_named(name) is not None or name.lower() in CONTAINERS for name in folders}
    if options.classes or not folders or divided == {True} or max(map(len, inner.values())) < 2:
        return []
    alike = " of the same names" if len(inner) > 1 and len(set(map(frozenset, inner.values()))) == 1 else ""
    return [
        f"{len(inner)} folders hold folders{alike}: the names of the outer ones are the classes; "
        f"--classes leaf takes the {len(folders)} inner ones"
    ]


def _by_pattern(keys: Sequence[str], pattern: str) -> list[str | None]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--label-from {pattern!r} is no regular expression: {error}") from error
    if expression.groups < 1:
        raise UsageError(f"--label-from {pattern!r} needs a group in parentheses around the class")
    found = [expression.search(posixpath.basename(key)) or expression.search(key) for key in keys]
    return [match[1] if match else None for match in found]


def _inner_splits(
    labelled: list[tuple[str, str, str | None]],
) -> tuple[list[tuple[str, str, str | None]], list[str]]:
    """`class/{train,test}/...`: where every folder in every class is a split, it is the images' split."""
    if any(key.count("/") < 2 for key, _, _ in labelled):
        return labelled, []
    seconds = {parts[1] if len(parts := key.split("/")) > 2 else "" for key, _, _ in labelled}
    if len(seconds) < 2 or (named := splits_of(seconds)) is None:
        return labelled, []
    divided: list[tuple[str, str, str | None]] = [
        (key, label, named[key.split("/")[1]]) for key, label, _ in labelled
    ]
    return divided, [f"the folders {', '.join(sorted(seconds))} in the class folders are the splits"]


def _readable(labels: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Folder name -> class name: composed (NFC), and bytes that are no UTF-8 as escapes."""
    names, notes = {}, []
    for label in labels:
        text = label.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        names[label] = unicodedata.normalize("NFC", text)
        if text != label:
            notes.append(f"a folder's name is not UTF-8; the class is called {text!r}")
    same = len(names) - len(set(names.values()))
    if same:
        notes.append(
            f"{same} class name(s) are written both composed and decomposed (Unicode): one class each"
        )
    return names, notes
