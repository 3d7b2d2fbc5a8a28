"""Dividing a data set that has no division of its own."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

from inception.errors import UsageError


def stratified_split(
    keys: Sequence[str], labels: Sequence[Hashable], fractions: Mapping[str, float], seed: int = 0
) -> list[str]:
    """Assign every key to "train" or to one of the splits in `fractions`, class by class.

    Within a class the keys are ordered by a hash of (seed, key). The order of the input, the content of the
    files and the other classes therefore play no part, and one file more in a class moves at most one file
    across each border. A class of n keys gives each split `max(1, round(n x fraction))` of them, except that
    at least one stays in "train": of two keys the first split named gets one, of one key none does.

    Args:
        keys: what is divided, usually paths relative to the data set; all different.
        labels: the class of each key.
        fractions: share of each split besides "train", each in 0..1 and together below 1; 0 gives none.
        seed: another seed gives another, equally good division.

    Returns:
        The split of each key, in the order of `keys`.

    Raises:
        UsageError: if the fractions are out of range.
    """
    if any(not 0 <= fraction < 1 for fraction in fractions.values()) or sum(fractions.values()) >= 1:
        raise UsageError(
            f"The fractions of a split must be at least 0 and together below 1, not {dict(fractions)}; "
            "choose a smaller val_fraction."
        )
    classes: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        classes[label].append(index)
    assigned = ["train"] * len(keys)
    for members in classes.values():
        ordered = sorted(members, key=lambda index: (_hash(seed, keys[index]), keys[index]))
        for split, fraction in fractions.items():
            count = max(1, math.floor(len(members) * fraction + 0.5)) if fraction > 0 else 0
            for index in ordered[: min(count, len(ordered) - 1)]:
                assigned[index] = split
            ordered = ordered[min(count, len(ordered) - 1) :]
    return assigned


def _hash(seed: int, key: str) -> bytes:
    text = f"{seed}\0{key}".encode(errors="surrogateescape")
    return hashlib.blake2b(text, digest_size=8).digest()
