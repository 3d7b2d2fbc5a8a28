"""From what a training script saved to one network's tensors: wrappers, prefixes, averages, heads."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inception.errors import WeightsError

WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "params")
AVERAGES = ("state_dict_ema", "model_ema", "ema_model", "ema", "ema_state_dict", "model_ema_state_dict")
_PREFIXES = {"module", "_orig_mod", "model", "backbone", "net", "network", "state_dict", "encoder", "trunk"}
_PREFIXES |= {"base_model", "student", "ema_model", "averaged_model", "classifier_model"}
_NEARLY_ALL = 0.8
_HEADS = {"fc", "last_linear", "classif", "head", "head.fc", "fc2", "output"}
_NUMBERED = re.compile(r"(.+)\.\d+\.(weight|bias)")
_SHOWN = 4


def network_tensors(content: Any, path: Path, average: bool) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the network in a checkpoint, and what is to be said of them.

    Args:
        content: what was saved.
        path: for messages.
        average: take the averaged (EMA) weights.

    Raises:
        WeightsError: if it holds no tensors, or no averaged ones where they are asked for.
    """
    notes: list[str] = []
    if isinstance(content, Mapping):
        averages = _averages(content)
        if average:
            if not averages:
                raise WeightsError(f"{path} holds no averaged (EMA) weights: import it without --ema")
            key, content = averages
            notes.append(f"the averaged (EMA) weights were taken ({key})")
        else:
            found = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
            if found is not None:
                content = content[found]
                if averages:
                    notes.append(f"averaged (EMA) weights lie beside these ({averages[0]}): --ema takes them")
            elif averages and not _tensors(content):
                key, content = averages
                notes.append(f"the averaged (EMA) weights were taken ({key}): there are no others")
        tensors = _tensors(content)
        if tensors:
            tensors, stripped = _without_prefixes(tensors)
            tensors, headed = _plain_head(tensors)
            return tensors, notes + stripped + headed
    raise WeightsError(f"{path} holds no state_dict: save one with torch.save(model.state_dict(), ...)")


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _averages(content: Mapping[Any, Any]) -> tuple[str, Mapping[Any, Any]] | None:
    """Where a checkpoint keeps averaged weights: at its top, or in the state of a Lightning callback."""
    for key in AVERAGES:
        value = content.get(key)
        inner = value.get("module", value.get("state_dict", value)) if isinstance(value, Mapping) else None
        if _tensors(inner):
            return key, inner if isinstance(inner, Mapping) else {}
    callbacks = content.get("callbacks")
    for name, state in callbacks.items() if isinstance(callbacks, Mapping) else ():
        for key, value in state.items() if isinstance(state, Mapping) else ():
            if "ema" in f"{name}.{key}".lower() and _tensors(value):
                return f"callbacks.{name}.{key}", value
    return None


def _without_prefixes(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Names without what wrappers put before nearly all of them; the few that have it not are left out."""
    taken, left = [], []
    while len(tensors) > 1:
        first, count = (
            Counter(name.partition(".")[0] for name in tensors if "." in name).most_common(1)[0]
            if any("." in name for name in tensors)
            else ("", 0)
        )
        if first not in _PREFIXES or count < _NEARLY_ALL * len(tensors):
            break
        left += [name for name in tensors if not name.startswith(f"{first}.")]
        tensors = {
            name.removeprefix(f"{first}."): value
            for name, value in tensors.items()
            if name.startswith(f"{first}.")
        }
        taken.append(first)
    notes = [f"the prefix {'.'.join(taken)}. was taken off the names"] if taken else []
    if left:
        rest = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        notes.append(f"left out, as no part of the network: {', '.join(left[:_SHOWN])}{rest}")
    return tensors, notes


def _plain_head(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """A head that is an nn.Sequential with one linear layer, or has no bias, as one linear layer."""
    notes = []
    numbered = [name for name in tensors if (match := _NUMBERED.fullmatch(name)) and match[1] in _HEADS]
    linear = [name for name in numbered if name.endswith("weight") and tensors[name].dim() == 2]
    if len(linear) == 1 and len(numbered) <= 2:
        layer = linear[0].removesuffix(".weight")
        base = layer.rpartition(".")[0]
        tensors = {
            name.replace(f"{layer}.", f"{base}.", 1) if name in numbered else name: value
            for name, value in tensors.items()
        }
        notes.append(f"the head {layer} is the only linear layer of {base}: it is taken as {base}")
    for base in _HEADS:
        weight = tensors.get(f"{base}.weight")
        if weight is not None and weight.dim() == 2 and f"{base}.bias" not in tensors:
            tensors = {**tensors, f"{base}.bias": torch.zeros(len(weight), dtype=weight.dtype)}
            notes.append(f"the head {base} has no bias: zeros were taken")
    return tensors, notes
