"""The last layer of a network as people change it, as the one linear layer that our networks end in."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from inception.errors import WeightsError
from inception.weights.formats.prefixes import is_head_name, is_layer

ADVICE = "--partial takes the features with a fresh head, to be trained with `inception train --weights`"


_OF_NORMS = ("weight", "running_mean", "gamma", "moving_mean")


class _Linear(NamedTuple):
    """A linear layer of a file: its name, and how many numbers go out and in."""

    layer: str
    outputs: int
    inputs: int

    def __str__(self) -> str:
        return f"{self.layer} {self.outputs}x{self.inputs}"


def plain_head(
    tensors: Mapping[str, Tensor], base: str, used: Collection[str], keras: bool = False
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors with the head under the name `base`, and what is to be said of it.

    A Sequential with one linear layer, or a head of another name, takes the name; a missing bias becomes
    zeros.

    Args:
        tensors: a file's tensors in PyTorch's or Keras's form.
        base: name of the last layer in this form.
        used: the file's names of all other layers of the network.
        keras: whether the names and the layout are Keras's.

    Raises:
        WeightsError: if the head is more than one linear layer.
    """
    join, weight, bias = ("/", "kernel", "bias") if keras else (".", "weight", "bias")
    found, notes = dict(tensors), []
    free = {name: value for name, value in tensors.items() if name not in used}
    linear = _linear_layers(free, f"{join}{weight}", keras)
    head = next((one for one in linear if one.layer == base), None) or _the_head(linear, base)
    if head is None:
        return found, []
    _refuse_more(free, linear, head, base, join)
    if head.layer != base:
        ends = [end for end in (weight, bias) if f"{head.layer}{join}{end}" in found]
        found |= {f"{base}{join}{end}": found.pop(f"{head.layer}{join}{end}") for end in ends}
        why = (
            f"the only linear layer of {base}" if head.layer.startswith(f"{base}.") else "the last layer here"
        )
        notes.append(f"the head {head.layer} is {why}: it is taken as {base}")
    if f"{base}{join}{bias}" not in found:
        dtype = found[f"{base}{join}{weight}"].dtype
        found[f"{base}{join}{bias}"] = torch.zeros(head.outputs, dtype=dtype)
        notes.append(f"the head {base} has no bias: zeros were taken")
    return found, notes


def _sides(value: Tensor, keras: bool) -> tuple[int, int]:
    """Outputs and inputs of a linear layer's weights; zeros for what is none."""
    shape = tuple(value.shape)
    if len(shape) == 4 and shape[2:] == (1, 1) and not keras:
        shape = shape[:2]
    if len(shape) != 2:
        return 0, 0
    return (shape[1], shape[0]) if keras else (shape[0], shape[1])


def _linear_layers(free: Mapping[str, Tensor], ending: str, keras: bool) -> list[_Linear]:
    """The file's linear layers that belong to no other layer of the network."""
    weights = {name.removesuffix(ending): value for name, value in free.items() if name.endswith(ending)}
    layers = [_Linear(layer, *_sides(value, keras)) for layer, value in weights.items()]
    return [layer for layer in layers if layer.inputs]


def _the_head(linear: list[_Linear], base: str) -> _Linear | None:
    """The layer that is the head: one inside `base`, else one of a head's name; None without any."""
    inside = [layer for layer in linear if layer.layer.startswith(f"{base}.")]
    found = inside or [layer for layer in linear if is_head_name(layer.layer)]
    if len(found) > 1:
        chained = any(one.outputs == other.inputs for one in found for other in found if one != other)
        what = "is more than one linear layer" if inside or chained else "is not one, but several"
        raise WeightsError(f"the head {what} ({', '.join(map(str, found[:4]))}): {ADVICE}")
    return found[0] if found else None


def _refuse_more(
    free: Mapping[str, Tensor], linear: list[_Linear], head: _Linear, base: str, join: str
) -> None:
    """Refuse what stands before or behind the head's linear layer: the order of these is not in the file."""
    behind = [one for one in linear if one != head and one.inputs == head.outputs and is_head_name(one.layer)]
    if behind:
        raise WeightsError(f"the head is more than one linear layer ({head}, {behind[0]}): {ADVICE}")
    root = base if head.layer.startswith(f"{base}.") else head.layer.partition(".")[0]
    widths = (head.inputs, head.outputs)
    for name, value in free.items():
        layer, _, end = name.rpartition(join)
        if layer == head.layer or end not in _OF_NORMS:
            continue
        normal = value.dim() == 1 and value.numel() in widths and (is_layer(name) or join == "/")
        if layer.startswith(f"{root}{join}") or normal:
            raise WeightsError(f"the head is more than a linear layer ({head}, and {name}): {ADVICE}")


def plain_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights kept as a direction and a length (weight_norm) as the one tensor that they stand for."""
    found = dict(tensors)
    for direction, length in (
        (".weight_v", ".weight_g"),
        (".parametrizations.weight.original1", ".parametrizations.weight.original0"),
    ):
        for name in [name for name in tensors if name.endswith(direction)]:
            layer = name.removesuffix(direction)
            value, size = tensors[name].float(), tensors.get(layer + length)
            if size is None or value.dim() < 2 or size.numel() != len(value):
                continue
            norm = torch.linalg.vector_norm(value.flatten(1), dim=1)
            factor = (size.float().flatten() / norm).reshape(-1, *(1,) * (value.dim() - 1))
            del found[name], found[layer + length]
            found[f"{layer}.weight"] = value * factor
    return found
