"""The words by which folders, tables and lists of many tools name a split."""

import re
from collections.abc import Iterable

_WORDS = {
    "train": ("train", "training", "tr", "trainval", "trainvalid", "训练", "训练集"),
    "val": ("val", "valid", "validation", "validate", "dev", "publictest", "验证", "验证集"),
    "test": ("test", "testing", "eval", "evaluation", "holdout", "privatetest", "测试", "测试集"),
}
SPLIT_OF_WORD = {word: split for split, words in _WORDS.items() for word in words}
_FILLERS = {"set", "sets", "data", "dataset", "images", "image", "imgs", "img", "seg", "split", "folder"}
_FILLERS |= {"new", "files", "photos", "pictures", "the", "my", "final", "full", "cropped", "resized"}
_FILLERS |= {"samples", "v", "version"}
_UNLABELLED = {"pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled", "unsup"}
_UNLABELLED |= {"unsupervised"}
_SUFFIXES = ("set", "sets", "data", "dataset", "images", "imgs")
_PARTS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


def split_named(name: str, exact: bool = False) -> str | None:
    """The split that a folder's or cell's name stands for: train, val or test; None for any other name.

    A name is one word for a split, by itself or among words that mean nothing ("train_set", "seg_train",
    "TestImages", "val2017"); with `exact`, by itself only.
    """
    whole = re.sub(r"[\s_.-]+", "", name).lower()
    if whole in SPLIT_OF_WORD:
        return SPLIT_OF_WORD[whole]
    if exact:
        return None
    for suffix in _SUFFIXES:
        if (split := SPLIT_OF_WORD.get(whole.removesuffix(suffix))) is not None:
            return split
    words = [word.lower() for word in _PARTS.findall(name)]
    splits = {SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD}
    rest = [word for word in words if word not in SPLIT_OF_WORD and word not in _FILLERS]
    if len(splits) != 1 or not all(word.isdigit() for word in rest):
        return None
    return splits.pop()


def is_unlabelled(name: str) -> bool:
    """Whether a folder is called as those of pictures without classes are ("pred", "unlabeled")."""
    return any(word.lower() in _UNLABELLED for word in _PARTS.findall(name))


def splits_of(names: Iterable[str]) -> dict[str, str] | None:
    """Name -> split where every name stands for one; else None.

    Names that have the same other words do so too: `cars_train` and `cars_test`.
    """
    listed = list(names)
    found = {name: split_named(name) or _split_and_rest(name)[0] for name in listed}
    rests = {_split_and_rest(name)[1] for name in listed if split_named(name) is None}
    if len(rests) > 1 or (rests and len(listed) < 2):
        return None
    splits = {name: split for name, split in found.items() if split is not None}
    return splits if splits and len(splits) == len(found) else None


def _split_and_rest(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The one split that is among a name's words, and its other words."""
    words = [word.lower() for word in _PARTS.findall(name)]
    splits = {SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD}
    rest = tuple(word for word in words if word not in SPLIT_OF_WORD and word not in _FILLERS)
    return (splits.pop() if len(splits) == 1 else None), rest
