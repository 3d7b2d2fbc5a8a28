"""Folders that stand among class folders and are none: masks, copies of the set, parts of an archive."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from inception.data.table_paths import MASK_WORDS
from inception.errors import DataError

CONTAINERS = {"images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "data"}
"""Folders that only hold images, and name nothing."""
_NEVER_CLASSES = {"annotations", "trimaps", "segmentations", "segmentation"}
_MASKS = "masks or annotations of the images beside them"
_COPY = "a copy of the data set inside itself"
_PART_WORDS = {"part", "parts", "batch", "chunk", "archive", "shard", "volume", "images", "image", "imgs"}
_PEOPLE = {"patient", "subject", "case", "person", "study", "participant"}
_SPLIT_LISTS = re.compile(
    r"(?:train|val|valid|validation|test|trainval|train_test_split|(?:train|test)list\d*"
    r"|(?:validation|testing)_list|splits?)\.(?:txt|csv|json|lst)",
    re.IGNORECASE,
)
_SHOWN = 3


def set_aside(keys: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The images that remain, and why others are left out: masks beside images, copies of the whole set."""
    children: defaultdict[str, set[str]] = defaultdict(set)
    for folder in {key.rpartition("/")[0] for key in keys}:
        parts = folder.split("/")
        for depth in range(len(parts)):
            children["/".join(parts[:depth])].add(parts[depth])
    reasons = {f"{folder}/": _MASKS for folder in _mask_folders(children)}
    tops = children[""] - {""}
    for top in tops:
        if len(children[top]) > 1 and children[top] == tops - {top}:
            reasons[f"{top}/"] = _COPY
    if not reasons:
        return list(keys), {}
    kept: list[str] = []
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        found = next((why for folder, why in reasons.items() if key.startswith(folder)), None)
        (kept if found is None else left_out[found]).append(key)
    return kept, left_out


def _mask_folders(children: dict[str, set[str]]) -> list[str]:
    """Folders called `masks` and the like that have a folder of images beside them."""
    found = []
    for parent, names in list(children.items()):
        beside = any(name.lower() in CONTAINERS for name in names)
        masks = MASK_WORDS if beside else _NEVER_CLASSES if len(names) > 1 else set()
        found += [posixpath.join(parent, name) for name in names if name.lower() in masks]
    return found


def refuse_parts(tops: Iterable[str]) -> None:
    """Raise `DataError` where the top folders are the parts of one archive (`images_001`, `images_002`)."""
    listed = sorted(tops)
    bases = {re.sub(r"[\W_]*\d+$", "", top) for top in listed}
    base = next(iter(bases), "")
    words = {word.lower() for word in re.findall(r"[A-Za-z]+", base)}
    if len(listed) > 1 and len(bases) == 1 and base != listed[0] and words & _PART_WORDS:
        shown = ", ".join(listed[:_SHOWN]) + (", …" if len(listed) > _SHOWN else "")
        raise DataError(
            f"the folders {shown} look like parts of one archive, not like classes: rename them if they are; "
            "else give a table of path,label."
        )


def people_note(labels: Iterable[str]) -> list[str]:
    """A sentence where the classes are called like people or cases: those are seldom what is learnt."""
    listed = sorted(labels)
    numbered = [label for label in listed if re.sub(r"[\W_]*\d+$", "", label).lower() in _PEOPLE]
    if not listed or len(numbered) < len(listed):
        return []
    return [
        f"the classes are called like people or cases ({', '.join(listed[:_SHOWN])}): if they are none, "
        "give a table of path,label, or --classes leaf"
    ]


def list_notes(others: Iterable[str]) -> list[str]:
    """A sentence where lists of splits lie beside the images: they are not read, and a split is drawn."""
    lists = [name for name in others if _SPLIT_LISTS.fullmatch(posixpath.basename(name))]
    if not lists:
        return []
    shown = ", ".join(lists[:_SHOWN]) + (", …" if len(lists) > _SHOWN else "")
    return [
        f"{shown}: lists of splits are not read, and a split is drawn; a table with a split column is used"
    ]
