"""What every branch of every module gives to an answer, and what the stages see."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from inception.explain.attribution import Question
from inception.explain.layers import Maps, activations, borrowed, forward_taps
from inception.explain.pictures import GAP, INK, PAPER, SERIES, SOFT, Cell, font, grey_map, sheet
from inception.nets.layers import AvgPool, Concat, MaxPool
from inception.nets.network import Network

SHOWN_MAPS = 8
MAP_SIDE = 84


@dataclass(frozen=True)
class Share:
    """One branch of one module.

    Attributes:
        branch: its layers (`b3x3_reduce > b3x3`).
        kind: its largest window (`1x1`, `3x3`, …), or `pool`.
        channels: of its output.
        activation: share of the module's summed absolute activations, in 0..1.
        gradient: share of the summed absolute activation times gradient of the score, in 0..1.
        contribution: sum of activation times gradient: how much the branch speaks for the answer (signed).
    """

    branch: str
    kind: str
    channels: int
    activation: float
    gradient: float
    contribution: float


@dataclass(frozen=True)
class ModuleTrace:
    """The branches of one module, in the network's order."""

    module: str
    shares: tuple[Share, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {"module": self.module, "branches": [asdict(share) for share in self.shares]}


def trace_branches(network: Network, image: Tensor, question: Question) -> tuple[ModuleTrace, ...]:
    """Shares of the branches for one normalised image C x H x W; empty for a network without branches.

    Activation times gradient is the first-order change of the score when an activation is taken away. Modules
    that the asked head does not read are left out.
    """
    modules = {path: module for path, module in network.named_modules() if isinstance(module, Concat)}
    if not modules:
        return ()
    # A branch ends in one module, or in several side by side.
    ends = {
        path: [[f"{path}.{name}" for name in branch[-1]] for branch in module.paths]
        for path, module in modules.items()
    }
    taps = [name for branches in ends.values() for branch in branches for name in branch]
    with borrowed(network), torch.enable_grad():
        inputs = image[None].clone().requires_grad_()
        maps = activations(network, inputs, [*taps, question.head])
        values = maps[question.head][:, question.target]
        if question.against is not None:
            values = values - maps[question.head][:, question.against]
        found = torch.autograd.grad(values.sum(), [maps[name] for name in taps], allow_unused=True)
    gradients = dict(zip(taps, found, strict=True))
    return tuple(
        _module_trace(path, modules[path], branches, maps, gradients)
        for path, branches in ends.items()
        if all(gradients[name] is not None for branch in branches for name in branch)
    )


def _module_trace(
    path: str,
    module: Concat,
    ends: list[list[str]],
    maps: Maps,
    gradients: dict[str, Tensor],
) -> ModuleTrace:
    outputs = [[maps[name].detach() for name in branch] for branch in ends]
    products = [[maps[name].detach() * gradients[name] for name in branch] for branch in ends]
    activity = [sum(float(part.abs().sum()) for part in branch) for branch in outputs]
    strength = [sum(float(part.abs().sum()) for part in branch) for branch in products]
    shares = []
    for index, steps in enumerate(module.paths):
        shares.append(
            Share(
                branch=" > ".join(" + ".join(names) for names in steps),
                kind=_kind(module, steps),
                channels=sum(part.shape[1] for part in outputs[index]),
                activation=activity[index] / (sum(activity) or 1.0),
                gradient=strength[index] / (sum(strength) or 1.0),
                contribution=sum(float(part.sum()) for part in products[index]),
            )
        )
    return ModuleTrace(path, tuple(shares))


def _kind(module: Concat, steps: Sequence[tuple[str, ...]]) -> str:
    """`pool`, or how far the branch sees: stacked convolutions count together (two 3x3 see 5x5)."""
    layers = [layer for names in steps for name in names for layer in module.get_submodule(name).modules()]
    if any(isinstance(layer, MaxPool | AvgPool) for layer in layers):
        return "pool"
    height = width = 1
    for names in steps:
        kernels = [
            layer.kernel_size
            for name in names
            for layer in module.get_submodule(name).modules()
            if isinstance(layer, nn.Conv2d)
        ]
        # Side by side the widest counts; behind each other (a chain in one module) they add up.
        grown = sum if len(names) == 1 else max
        height += grown([kernel[0] - 1 for kernel in kernels])
        width += grown([kernel[1] - 1 for kernel in kernels])
    return f"{height}x{width}"


def share_by_kind(traces: Sequence[ModuleTrace]) -> dict[str, tuple[float, float]]:
    """Mean activation and gradient share of each kind of branch over the modules, the widest first."""
    kinds: dict[str, list[Share]] = {}
    for trace in traces:
        for share in trace.shares:
            kinds.setdefault(share.kind, []).append(share)
    return {
        kind: (
            sum(share.activation for share in found) / len(traces),
            sum(share.gradient for share in found) / len(traces),
        )
        for kind, found in kinds.items()
    }


def branch_picture(traces: Sequence[ModuleTrace], title: str) -> Image.Image:
    """Two bars for every module: activation and gradient share of its branches."""
    kinds = list(share_by_kind(traces))
    label, bar, height, top = 170, 300, 16, 62
    canvas = Image.new("RGB", (label + 2 * (bar + GAP) + GAP, top + (height + 6) * len(traces) + GAP), PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text((GAP, GAP - 2), title, INK, font(13))
    x = GAP
    for number, kind in enumerate(kinds):
        pen.rectangle((x, 29, x + 9, 38), SERIES[number % len(SERIES)])
        pen.text((x + 13, 27), kind, INK, font(12))
        x += 28 + int(font(12).getlength(kind))
    for column, head in enumerate(("share of the activation", "share of activation x gradient")):
        pen.text((label + column * (bar + GAP), 44), head, SOFT, font(12))
    for row, trace in enumerate(traces):
        y = top + (height + 6) * row
        pen.text((GAP, y), trace.module, INK, font(12))
        for column, name in enumerate(("activation", "gradient")):
            start = float(label + column * (bar + GAP))
            for share in trace.shares:
                width = bar * float(getattr(share, name))
                colour = SERIES[kinds.index(share.kind) % len(SERIES)]
                pen.rectangle((start, y, start + width, y + height), colour)
                start += width
    return canvas


def map_picture(network: Network, image: Tensor, count: int = SHOWN_MAPS) -> Image.Image:
    """The strongest feature maps of every stage for one normalised image C x H x W, a row for each stage.

    The strongest are those of largest mean; each is scaled to its own largest value.
    """
    with borrowed(network), torch.no_grad():
        maps = forward_taps(network, image[None], network.endpoints)
    rows: list[list[Cell]] = []
    for stage in network.endpoints:
        features = maps[stage][0].float()
        strongest = features.mean(dim=(1, 2)).argsort(descending=True, stable=True)[:count].tolist()
        size = " x ".join(map(str, features.shape))
        cells = []
        for position, index in enumerate(strongest):
            picture = grey_map(features[index]).resize((MAP_SIDE, MAP_SIDE), Image.Resampling.NEAREST)
            note = {0: stage, 1: size}.get(position, "")
            cells.append((picture, f"{index}\n{note}"))
        rows.append(cells)
    return sheet(rows)
