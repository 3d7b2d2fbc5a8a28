"""From what a training script saved to one network's tensors: wrappers and averaged weights."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from inception.errors import WeightsError
from inception.weights.formats.prefixes import PREFIXES, split_average, without_prefixes

WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "params"),
    *("module", "model_weights", "state"),
)
LIGHTNING_LAST = "current_model_state"
"""Where Lightning's WeightAveraging keeps the last weights; its `state_dict` are the averaged ones."""
_AVERAGE = re.compile(r"EMA|Ema|SWA|(?<![a-z])(?:ema|swa)(?![a-z])|[Aa]verag|[Ss]hadow")
_BESIDE = re.compile(r"optim|sched|scaler|loss|criterion|rng|random|metric|buffer|callbacks|loops|hyper|args")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_DEPTH = 4


class _Held(NamedTuple):
    """Tensors by name, or in the order of the parameters, and the keys that lead to them."""

    keys: tuple[str, ...]
    tensors: dict[str, Tensor] | list[Tensor]

    @property
    def name(self) -> str:
        return ".".join(self.keys)


def network_tensors(content: Any, path: Path, average: bool) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the network in a checkpoint, and what is to be said of them.

    Args:
        content: what was saved.
        path: for messages.
        average: take the averaged (EMA) weights.

    Raises:
        WeightsError: if it holds no tensors or several networks' ones, or no averaged ones where they are
            asked for.
    """
    content = content if isinstance(content, Mapping) else {}
    plain, notes = _plain(content, path)
    averages = _averages(content, plain)
    tensors, stripped = without_prefixes(plain, PREFIXES.__contains__)
    tensors, inner = split_average(tensors, _AVERAGE, path)
    key = averages.name if averages else inner.key if inner else None
    if isinstance(content.get(LIGHTNING_LAST), Mapping) and plain:
        notes.append(f"these are averaged weights (Lightning's); the last ones lie beside ({LIGHTNING_LAST})")
    elif key is None and average:
        raise WeightsError(f"{path} holds no averaged (EMA) weights: import it without --ema")
    elif key is not None and (average or not plain):
        beside = "" if plain else ": there are no others"
        notes.append(f"the averaged (EMA) weights were taken ({key}){beside}")
        tensors, stripped, filled = _taken(averages, inner.tensors if inner else {}, tensors, path)
        notes += filled
    elif key is not None:
        notes.append(f"averaged (EMA) weights lie beside these ({key}): --ema takes them")
    if not tensors:
        raise WeightsError(f"{path} holds no state_dict: save one with torch.save(model.state_dict(), ...)")
    return tensors, notes + stripped


def _plain(content: Mapping[Any, Any], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The weights that are no average; none where there are only averages."""
    held = list(_weights(content, ()))
    if len(held) > 1:
        names = ", ".join(one.name for one in held[:_DEPTH])
        raise WeightsError(
            f"{path} holds several sets of weights ({names}): save the one you want: "
            f"torch.save(torch.load(file)['{held[0].keys[0]}'], 'weights.pth')"
        )
    if not held or isinstance(held[0].tensors, list):
        return {}, []
    known = all(key in WRAPPERS for key in held[0].keys)
    return held[0].tensors, [] if known else [f"the weights were taken from {held[0].name}"]


def _weights(content: Any, keys: tuple[str, ...]) -> Iterator[_Held]:
    """What holds tensors inside: the first known wrapper alone, else the mapping itself, else all inside."""
    if not isinstance(content, Mapping) or len(keys) > _DEPTH:
        return
    for wrapper in WRAPPERS:
        inside = list(_weights(content.get(wrapper), (*keys, wrapper)))
        if inside:
            yield from inside
            return
    if own := _tensors(content):
        yield _Held(keys, own)
        return
    for key, value in content.items():
        if not _AVERAGE.search(str(key)) and not _BESIDE.search(str(key).lower()):
            yield from _weights(value, (*keys, str(key)))


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _averages(content: Mapping[Any, Any], plain: dict[str, Tensor]) -> _Held | None:
    """The averaged weights: at the top, or in a callback's state; a few tensors are no network."""
    least = sum(not name.endswith(_STATISTICS) for name in plain) // 2
    found = [held for held in _averaged(content, ()) if len(held.tensors) > max(least, 1)]
    return max(found, key=lambda held: len(held.tensors)) if found else None


def _averaged(content: Any, keys: tuple[str, ...]) -> Iterator[_Held]:
    if len(keys) > _DEPTH:
        return
    if keys and _AVERAGE.search(".".join(keys)):
        if own := _tensors(content):
            yield _Held(keys, own)
            return
        if isinstance(content, list | tuple) and content and all(isinstance(one, Tensor) for one in content):
            yield _Held(keys, list(content))
            return
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if "optim" not in str(key).lower():
            yield from _averaged(value, (*keys, str(key)))


def _taken(
    averages: _Held | None, inner: dict[str, Tensor], tensors: dict[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The averaged tensors, what was said of their names, and what the others had to add.

    Averages of parameters alone come without the statistics of batch normalisation, torch_ema's even without
    names, in the order of the parameters.
    """
    stripped: list[str] = []
    if averages is None:
        own = inner
    elif isinstance(averages.tensors, dict):
        own, stripped = without_prefixes(averages.tensors, PREFIXES.__contains__)
    else:
        names = [name for name in tensors if not name.endswith(_STATISTICS)]
        fits = len(names) == len(averages.tensors) and all(
            tensors[name].shape == value.shape for name, value in zip(names, averages.tensors, strict=False)
        )
        if not fits:
            raise WeightsError(
                f"{path}: the averaged weights ({averages.name}) are a list without names that does not "
                "fit the others: save the averaged network's state_dict()"
            )
        own = dict(zip(names, averages.tensors, strict=True))
    statistics = {name: value for name, value in tensors.items() if name.endswith(_STATISTICS)}
    added = [name for name in statistics if name not in own]
    note = "the averaged weights have no statistics of batch normalisation: the last ones were taken"
    return {**statistics, **own}, stripped, [note] if added else []
