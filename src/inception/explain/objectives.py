"""What a picture should excite: objectives that add, subtract, scale and multiply.

channel("mixed4a", 97) + 0.5 * neuron("mixed4b", 12) - channel("mixed3b", 3)
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inception.errors import UsageError
from inception.explain.layers import LOGITS, Maps


@dataclass(frozen=True)
class Objective:
    """A number for each picture, to be made large.

    Attributes:
        text: how it is written.
        layers: layers it reads.
        value: their outputs -> N values, differentiable.
    """

    text: str
    layers: frozenset[str]
    value: Callable[[Maps], Tensor]

    def __add__(self, other: "Objective") -> "Objective":
        return _both(self, other, f"{self.text} + {other.text}", torch.add)

    def __sub__(self, other: "Objective") -> "Objective":
        return _both(self, other, f"{self.text} - {_grouped(other)}", torch.sub)

    def __mul__(self, other: "Objective | float") -> "Objective":
        if isinstance(other, Objective):
            return _both(self, other, f"{_grouped(self)} * {_grouped(other)}", torch.mul)
        factor = float(other)
        return Objective(
            f"{factor:g} * {_grouped(self)}", self.layers, lambda maps: factor * self.value(maps)
        )

    __rmul__ = __mul__

    def __neg__(self) -> "Objective":
        return self * -1.0


def _both(a: Objective, b: Objective, text: str, combine: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    return Objective(text, a.layers | b.layers, lambda maps: combine(a.value(maps), b.value(maps)))


def _grouped(objective: Objective) -> str:
    return f"({objective.text})" if " + " in objective.text or " - " in objective.text else objective.text


def channel(layer: str, index: int) -> Objective:
    """Mean of channel `index` over the whole map (of a vector: that unit).

    Its value raises UsageError when the layer has no such channel.
    """

    def value(maps: Maps) -> Tensor:
        return _mean(_channel(maps[layer], layer, index))

    return Objective(f"{layer}:{index}", frozenset((layer,)), value)


def neuron(layer: str, index: int, place: tuple[int, int] | None = None) -> Objective:
    """Channel `index` at one place (row, column) of the map; None: its centre."""

    def value(maps: Maps) -> Tensor:
        chosen = _channel(maps[layer], layer, index)
        if chosen.dim() == 1:
            return chosen
        row, column = _place(chosen, layer, place)
        return chosen[:, row, column]

    where = "centre" if place is None else f"{place[0]},{place[1]}"
    return Objective(f"{layer}:{index}@{where}", frozenset((layer,)), value)


def direction(layer: str, weights: dict[int, float]) -> Objective:
    """Mean over the map of a weighted sum of channels, the weights scaled to length 1."""
    norm = sum(weight**2 for weight in weights.values()) ** 0.5
    if norm == 0.0:
        raise UsageError(f"a direction in {layer} needs at least one weight that is not 0")

    def value(maps: Maps) -> Tensor:
        parts = [
            weight / norm * _mean(_channel(maps[layer], layer, index)) for index, weight in weights.items()
        ]
        return torch.stack(parts).sum(dim=0)

    text = ",".join(f"{index}={weight:g}" for index, weight in weights.items())
    return Objective(f"{layer}:{text}", frozenset((layer,)), value)


def toward(layer: str, weights: Tensor, power: float = 1.0) -> Objective:
    """How far, and how straight, the centre of the map points along `weights` (C values, any length).

    With h the C values at the centre and v = weights / |weights|: h v * max(0.1, cos(h, v)) ** power. The
    cosine keeps a picture from exciting other channels as well. Source: Carter et al. 2019, "Activation
    Atlas", and Lucid's `direction_neuron_cossim`. Its value raises UsageError when C is another number.
    """
    unit = F.normalize(weights.detach().float(), dim=0)

    def value(maps: Maps) -> Tensor:
        output = maps[layer].float()
        if output.shape[1] != len(unit):
            raise UsageError(f"{layer} has {output.shape[1]} channels; the direction has {len(unit)}")
        if output.dim() == 4:
            output = output[:, :, output.shape[2] // 2, output.shape[3] // 2]
        dot = output @ unit.to(output.device)
        cosine: Tensor = dot / output.norm(dim=1).clamp(min=1e-4)
        return dot * cosine.clamp(min=0.1).pow(power)

    return Objective(f"toward({layer})", frozenset((layer,)), value)


def whole_layer(layer: str) -> Objective:
    """Mean square of everything in the layer: DeepDream's objective."""
    return Objective(
        layer, frozenset((layer,)), lambda maps: maps[layer].float().square().flatten(1).mean(dim=1)
    )


def diversity(layer: str) -> Objective:
    """How unlike the pictures are: minus the mean cosine of their Gram matrices, N values in -1..1.

    Source: Lucid's `diversity`; Olah et al. 2017, "Diversity".
    """

    def value(maps: Maps) -> Tensor:
        features = maps[layer].float().flatten(2)
        gram = F.normalize((features @ features.transpose(1, 2)).flatten(1), dim=1)
        alike = gram @ gram.T
        others = len(gram) - 1
        return -(alike.sum(dim=1) - alike.diagonal()) / max(others, 1)

    return Objective(f"diversity({layer})", frozenset((layer,)), value)


def diverse(objective: Objective, layer: str, strength: float) -> Objective:
    """`objective`, and `strength` times its own size for pictures unlike each other in `layer`."""
    apart = diversity(layer)

    def value(maps: Maps) -> Tensor:
        own = objective.value(maps)
        return own + strength * own.detach().abs() * apart.value(maps)

    return Objective(f"{objective.text} + {apart.text}", objective.layers | apart.layers, value)


def each(objectives: Sequence[Objective]) -> Objective:
    """Picture i is judged by objective i."""

    def value(maps: Maps) -> Tensor:
        values = [
            objective.value({layer: maps[layer][index : index + 1] for layer in objective.layers})
            for index, objective in enumerate(objectives)
        ]
        return torch.cat(values)

    layers = frozenset[str]().union(*(objective.layers for objective in objectives))
    return Objective(" | ".join(objective.text for objective in objectives), layers, value)


def interpolate(first: Objective, second: Objective, steps: int) -> list[Objective]:
    """From `first` to `second` in `steps` equal steps, both ends included."""
    if steps < 2:
        raise UsageError(f"an interpolation needs at least 2 steps, not {steps}")
    shares = [index / (steps - 1) for index in range(steps)]
    return [(1.0 - share) * first + share * second for share in shares]


def _channel(output: Tensor, layer: str, index: int) -> Tensor:
    if not 0 <= index < output.shape[1]:
        raise UsageError(f"{layer} has {output.shape[1]} channels, 0 to {output.shape[1] - 1}: no {index}")
    return output[:, index].float()


def _mean(chosen: Tensor) -> Tensor:
    return chosen.reshape(len(chosen), -1).mean(dim=1)


def _place(chosen: Tensor, layer: str, place: tuple[int, int] | None) -> tuple[int, int]:
    height, width = chosen.shape[1:]
    row, column = (height // 2, width // 2) if place is None else place
    if not (0 <= row < height and 0 <= column < width):
        raise UsageError(f"{layer} is {height} x {width} here: it has no place {row},{column}")
    return row, column


def parse(text: str, labels: Sequence[str]) -> Objective:
    """An objective from what a user writes.

    `LAYER:97` a channel; `LAYER:97@centre` or `LAYER:97@3,5` one neuron; `LAYER:97=1,30=-0.5` a direction;
    `LAYER` everything in it; `logits:goldfish` a class by its label (or any part that fits just one) or
    number.
    Terms are joined by ` + `, ` - ` and ` * ` (with spaces; ` * ` binds first), numbers are factors.
    Raises UsageError for what it cannot read.
    """
    pieces = re.split(r" ([+-]) ", text.strip())
    total: Objective | None = None
    for sign, piece in zip(["+", *pieces[1::2]], pieces[::2], strict=True):
        term = _product(piece, labels)
        signed = term if sign == "+" else -1.0 * term
        total = signed if total is None else total + signed
    if total is None:
        raise UsageError("an objective needs at least one term, such as mixed4a:97")
    return total


def _product(text: str, labels: Sequence[str]) -> Objective:
    factor, result = 1.0, None
    for piece in text.split(" * "):
        if re.fullmatch(r"-?\d+(\.\d+)?", piece.strip()):
            factor *= float(piece)
        else:
            term = _term(piece.strip(), labels)
            result = term if result is None else result * term
    if result is None:
        raise UsageError(f"'{text}' names no layer; write for example mixed4a:97")
    return result if factor == 1.0 else factor * result


def _term(text: str, labels: Sequence[str]) -> Objective:
    layer, colon, rest = text.partition(":")
    if not layer or (colon and not rest):
        raise UsageError(f"'{text}' is no objective; write for example mixed4a:97 or logits:goldfish")
    if not colon:
        return whole_layer(layer)
    classifies = layer == LOGITS or layer.startswith("aux")
    if classifies and rest in labels:
        return channel(layer, labels.index(rest))
    if match := re.fullmatch(r"(\d+)(@(?:(\d+),(\d+)|cent(?:re|er)))?", rest):
        index = int(match[1])
        if match[2] is None:
            return channel(layer, index)
        return neuron(layer, index, None if match[3] is None else (int(match[3]), int(match[4])))
    if re.fullmatch(r"\d+=-?\d+(\.\d+)?(,\d+=-?\d+(\.\d+)?)*", rest):
        pairs = (pair.split("=") for pair in rest.split(","))
        return direction(layer, {int(index): float(weight) for index, weight in pairs})
    if classifies:
        return channel(layer, find_label(rest, labels))
    raise UsageError(f"'{rest}' is no channel of {layer}; write a number, as in {layer}:97")


def find_label(text: str, labels: Sequence[str]) -> int:
    """Position of the class that `text` means: its label, its number, or a part of just one label.

    Raises UsageError, with candidates, when there is none or more than one.
    """
    if text in labels:
        return labels.index(text)
    if text.isdigit() and int(text) < len(labels):
        return int(text)
    wanted = text.casefold()
    # A word or synonym of its own ("tabby" in "n02123045 tabby, tabby cat") goes before a mere part.
    for matches in (
        [i for i, label in enumerate(labels) if wanted in _names(label)],
        [i for i, label in enumerate(labels) if wanted in label.casefold()],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            some = "; ".join(labels[i] for i in matches[:4])
            raise UsageError(f"'{text}' fits {len(matches)} classes: {some}; write more of the label")
    raise UsageError(f"no class of the {len(labels)} is called '{text}'")


def _names(label: str) -> list[str]:
    plain = re.sub(r"^n\d{8} ", "", label).casefold()
    return [name.strip() for name in plain.split(",")]
