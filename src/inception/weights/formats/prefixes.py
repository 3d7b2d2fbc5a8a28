"""Names of tensors without what wrappers put before them, and what lies beside one network's tensors."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from inception.errors import WeightsError

PREFIXES = {"module", "_orig_mod", "model", "backbone", "net", "network", "state_dict", "encoder", "trunk"}
PREFIXES |= {"base_model", "student", "ema_model", "averaged_model", "classifier_model", "_forward_module"}
"""First parts of names that no network here has."""
_NEARLY_ALL, _TWIN_SHARE, _TWIN_OVERLAP = 0.8, 0.3, 0.9
_SHOWN = 4
_HEAD = re.compile(
    r"(?:^|_)(?:fc|lin|linear|dense|logits?|out|output|cls|clf|classes|classif\w*|heads?|pred\w*|final|last|top)"
    r"(?:$|_|\d)"
)
_NO_HEAD = re.compile(r"aux|proj|loss|criterion|metric|center|decod")
_LAYER = re.compile(
    r".+\.(?:weight(?:_[gv])?|bias|running_mean|running_var|num_batches_tracked|original[01])"
)


class Average(NamedTuple):
    """Averaged weights among the tensors of a checkpoint, and the prefix of their names."""

    key: str
    tensors: dict[str, Tensor]


def is_head_name(name: str) -> bool:
    """Whether a tensor or layer is called as people call the last layers of a network."""
    first = name.lower().partition(".")[0].partition("/")[0]
    return bool(_HEAD.search(first)) and not _NO_HEAD.search(name.lower())


def is_layer(name: str) -> bool:
    """Whether a tensor belongs to a layer that may stand behind the features, and to no metric or loss."""
    return bool(_LAYER.fullmatch(name)) and not _NO_HEAD.search(name.lower())


def listed(names: list[str], shown: int = _SHOWN) -> str:
    """The first few names, and how many more there are."""
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(names[:shown])}{rest}"


def without_prefixes(
    tensors: dict[str, Tensor], is_prefix: Callable[[str], bool]
) -> tuple[dict[str, Tensor], list[str]]:
    """Names without the first parts that nearly all of them share, as long as `is_prefix` says so of it.

    The few that have them not are left out, but for layers beside the network: its head.
    """
    taken: list[str] = []
    left: dict[str, Tensor] = {}
    while len(tensors) > 1:
        firsts = Counter(name.partition(".")[0] for name in tensors if "." in name)
        first, count = firsts.most_common(1)[0] if firsts else ("", 0)
        if not is_prefix(first) or count < _NEARLY_ALL * len(tensors):
            break
        left |= {name: value for name, value in tensors.items() if not name.startswith(f"{first}.")}
        tensors = {
            name.removeprefix(f"{first}."): value
            for name, value in tensors.items()
            if name.startswith(f"{first}.")
        }
        taken.append(first)
    if not taken:
        return tensors, []
    notes = [f"the prefix {'.'.join(taken)}. was taken off the names"]
    heads = {name: value for name, value in left.items() if is_layer(name) and name not in tensors}
    others = [name for name in left if name not in heads]
    if others:
        notes.append(f"left out, as no part of the network: {listed(others)}")
        notes += _normalisation(left)
    return {**tensors, **heads}, notes


def _normalisation(left: dict[str, Tensor]) -> list[str]:
    """A network that normalises its input keeps the mean and deviation beside its weights."""
    found = {
        word: [round(float(number), 4) for number in value.flatten()]
        for name, value in left.items()
        for word in ("mean", "std")
        if re.search(rf"(?:^|[._]){word}$", name) and value.numel() in (1, 3) and value.is_floating_point()
    }
    if len(found) < 2:
        return []
    options = " ".join(f"--{word} {','.join(map(str, numbers))}" for word, numbers in sorted(found.items()))
    return [f"the file holds a mean and a deviation of images, which are not used: give {options}"]


def split_average(
    tensors: dict[str, Tensor], average: re.Pattern[str], path: Path
) -> tuple[dict[str, Tensor], Average | None]:
    """One network's tensors where the file holds two alike, and the average among the two.

    Raises WeightsError where the names do not say which of the two is which.
    """
    roots = Counter(name.partition(".")[0] for name in tensors if "." in name).most_common(2)
    sizes = [count for _, count in roots]
    if len(roots) < 2 or sizes[1] < _TWIN_SHARE * len(tensors) or sum(sizes) < _NEARLY_ALL * len(tensors):
        return tensors, None
    twins = {root: _inside(tensors, root) for root, _ in roots}
    first, second = (set(inside) for inside in twins.values())
    if len(first & second) < _TWIN_OVERLAP * max(len(first), len(second)):
        return tensors, None
    averaged = [root for root in twins if average.search(root)]
    if len(averaged) != 1:
        raise WeightsError(
            f"{path} holds two networks alike, {' and '.join(sorted(twins))}: save the one you want "
            "(torch.save(model.state_dict(), 'weights.pth'))"
        )
    (plain,) = twins.keys() - set(averaged)
    return twins[plain], Average(averaged[0], twins[averaged[0]])


def _inside(tensors: dict[str, Tensor], root: str) -> dict[str, Tensor]:
    inside = {
        name.removeprefix(f"{root}."): value for name, value in tensors.items() if name.startswith(f"{root}.")
    }
    return without_prefixes(inside, PREFIXES.__contains__)[0]
