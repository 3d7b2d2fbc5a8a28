"""A network as a table, in the columns of the paper's Table 1, with the numbers of the live model."""

from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import Any

import torch
from torch import nn

from inception.nets.complexity import LayerCost, Pair, endpoint_shapes, profile, weightless_copy
from inception.nets.layers import Concat, ResidualBlock
from inception.nets.network import Network


@dataclass(frozen=True)
class Branches:
    """Channels inside an Inception module, in Table 1's columns; None where there is no such layer."""

    n1x1: int | None = None
    reduce3x3: int | None = None
    n3x3: int | None = None
    reduce5x5: int | None = None
    n5x5: int | None = None
    pool_proj: int | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        type: what the line is, in the paper's words.
        stages: the network's stages it stands for (response normalisation belongs to the line before it).
        kernel, stride: patch size and stride, as height and width; None where a line has no single one.
        output: height, width, channels; None in the line of totals.
        depth: layers with weights on the longest way through.
        branches: channels inside.
        parameters: learned numbers, biases included.
        operations: multiply-adds for one image.
    """

    type: str
    stages: tuple[str, ...]
    kernel: Pair | None
    stride: Pair | None
    output: tuple[int, int, int] | None
    depth: int
    branches: Branches
    parameters: int
    operations: int

    def cells(self) -> tuple[str, ...]:
        """The line's texts, one for each of `HEADINGS`."""
        channels = [getattr(self.branches, column.name) for column in fields(Branches)]
        return (
            self.type,
            self._patch(),
            "" if self.output is None else "×".join(map(str, self.output)),
            str(self.depth),
            *("" if count is None else str(count) for count in channels),
            f"{self.parameters:,}" if self.parameters else "",
            _short(self.operations) if self.operations else "",
        )

    def _patch(self) -> str:
        stride = "" if self.stride is None else _sides(self.stride)
        if self.kernel is not None:
            return f"{self.kernel[0]}×{self.kernel[1]}/{stride}"
        return f"stride {stride}" if stride else ""


HEADINGS = (
    "type",
    "patch size/stride",
    "output size",
    "depth",
    "#1×1",
    "#3×3 reduce",
    "#3×3",
    "#5×5 reduce",
    "#5×5",
    "pool proj",
    "params",
    "ops",
)
_BRANCH_COLUMNS = range(4, 10)


@dataclass(frozen=True)
class Summary:
    """A network as a table.

    Attributes:
        architecture: the network's name.
        image_size: height and width of the image it was measured with.
        rows: from input to output.
        total: their sum (auxiliary heads are not in it).
        auxiliary: the auxiliary heads, which only training runs.
        notes: where the live model departs from what a column's heading says.
    """

    architecture: str
    image_size: Pair
    rows: tuple[Row, ...]
    total: Row
    auxiliary: tuple[Row, ...]
    notes: tuple[str, ...]

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headings, and the texts of all lines: rows, total, auxiliary heads.

        The columns about Inception modules are left out of a network that has none.
        """
        rows = [*self.rows, self.total, *self.auxiliary]
        kept = [
            column
            for column in range(len(HEADINGS))
            if column not in _BRANCH_COLUMNS or any(row.branches != Branches() for row in rows)
        ]
        texts = [tuple(row.cells()[column] for column in kept) for row in rows]
        return tuple(HEADINGS[column] for column in kept), texts

    def to_dict(self) -> dict[str, Any]:
        """Lists, dictionaries, texts and whole numbers, ready for JSON."""
        return {
            "architecture": self.architecture,
            "image_size": list(self.image_size),
            "rows": [_row_dict(row) for row in self.rows],
            "total": _row_dict(self.total),
            "auxiliary": [_row_dict(row) for row in self.auxiliary],
            "parameters_with_auxiliary": self.total.parameters
            + sum(row.parameters for row in self.auxiliary),
            "notes": list(self.notes),
        }


def summarize(network: Network, image_size: int | Pair | None = None) -> Summary:
    """The table of `network` for one image of `image_size` (its own size by default).

    Every number is measured on the live model (see `inception.nets.complexity.profile`); the network is left
    as it is. Raises UsageError when the network does not accept images of that size.
    """
    size = network.image_size if image_size is None else image_size
    twin = weightless_copy(network)
    stages = {
        name: list(layers) for name, layers in groupby(profile(twin, size), key=lambda cost: cost.stage)
    }
    shapes = endpoint_shapes(twin, size)
    modules = _all_branches(twin, stages)
    rows = [
        _row(twin, stages, group, modules, shapes) for group in _lines(twin, stages, any(modules.values()))
    ]
    if twin.num_classes > 0:
        rows.append(Row("softmax", (), None, None, rows[-1].output, 0, Branches(), 0, 0))
    return Summary(
        architecture=twin.architecture,
        image_size=(size, size) if isinstance(size, int) else size,
        rows=tuple(rows),
        total=_total(rows),
        auxiliary=tuple(_auxiliary_row(twin, name, stages[name]) for name in twin.aux_taps),
        notes=_notes(modules),
    )


Layers = list[LayerCost]


def _lines(network: Network, stages: dict[str, Layers], has_modules: bool) -> list[list[str]]:
    """The stages that share a line, as in the paper.

    Response normalisation joins the line before it. In a network of Inception modules a 1x1 convolution joins
    the larger one it reduces for, as in Table 1's second convolution.
    """
    lines: list[list[str]] = []
    for name, layers in stages.items():
        if layers[0].auxiliary or _does_nothing(network, layers):
            continue
        normalizes = all(layer.kind == "response norm" for layer in layers)
        previous = stages[lines[-1][-1]] if lines else []
        reduced = has_modules and _only_window(previous) == (1, 1) and _is_wide_convolution(layers)
        if lines and (normalizes or reduced):
            lines[-1].append(name)
        else:
            lines.append([name])
    return lines


def _does_nothing(network: Network, layers: Layers) -> bool:
    layer, module = layers[0], network.get_submodule(layers[0].path)
    return len(layers) == 1 and (
        (layer.kind == "avg pool" and layer.input_shape == layer.output_shape)
        or (isinstance(module, nn.Dropout) and module.p == 0)
    )


def _only_window(layers: Layers) -> Pair | None:
    """The window of a stage that is a single convolution or pool."""
    windows = [layer.kernel for layer in layers if layer.kernel is not None]
    return windows[0] if len(windows) == 1 else None


def _is_wide_convolution(layers: Layers) -> bool:
    return layers[0].kind == "convolution" and _only_window(layers) not in (None, (1, 1))


def _all_branches(network: Network, stages: dict[str, Layers]) -> dict[str, dict[str, Layers] | None]:
    """Every stage's branches; none at all when some module has branches that Table 1 has no columns for."""
    found = {name: _module_branches(network, name, layers) for name, layers in stages.items()}
    fits = all(found[name] or not isinstance(getattr(network, name), Concat) for name in stages)
    return found if fits else dict.fromkeys(stages)


def _module_branches(network: Network, name: str, layers: Layers) -> dict[str, Layers] | None:
    """The convolutions of an Inception module by branch (`1x1`, `3x3`, `5x5`, `pool`).

    None where the stage is not of that form. Branches are told apart by what they see: a branch of receptive
    field 5 is the 5x5 one, and of two that see 3x3 the second stands in the paper's 5x5 place.
    """
    module = getattr(network, name)
    if not isinstance(module, Concat) or sum(isinstance(part, Concat) for part in module.modules()) > 1:
        return None
    found: dict[str, Layers] = {}
    for path in module.paths:
        if any(len(names) > 1 for names in path):
            return None
        chain = [layer for layer in layers if (layer.path.split(".")[1],) in path]
        convolutions = [layer for layer in chain if layer.kind == "convolution"]
        key = "pool" if any("pool" in layer.kind for layer in chain) else _sees(convolutions)
        if key == "3x3" and "3x3" in found:
            key = "5x5"
        if key is None or key in found or (key == "pool" and len(convolutions) > 1):
            return None
        found[key] = convolutions
    return found


def _sees(convolutions: Layers) -> str | None:
    """What a chain of convolutions sees, as a branch's name; None for what Table 1 has no column for."""
    kernels = [layer.kernel for layer in convolutions if layer.kernel is not None]
    wide = kernels[1:] if kernels[:1] == [(1, 1)] else kernels
    if any(height != width or height == 1 for height, width in wide):
        return None
    return {1: "1x1", 3: "3x3", 5: "5x5"}.get(1 + sum(height - 1 for height, _ in wide))


def _channels(branches: dict[str, Layers]) -> Branches:
    def last(key: str) -> int | None:
        return branches[key][-1].output_shape[0] if branches.get(key) else None

    def reduction(key: str) -> int | None:
        chain = branches.get(key, [])
        return chain[0].output_shape[0] if chain and chain[0].kernel == (1, 1) else None

    return Branches(last("1x1"), reduction("3x3"), last("3x3"), reduction("5x5"), last("5x5"), last("pool"))


def _row(
    network: Network,
    stages: dict[str, Layers],
    line: list[str],
    modules: dict[str, dict[str, Layers] | None],
    shapes: dict[str, tuple[int, ...]],
) -> Row:
    layers = [layer for name in line for layer in stages[name]]
    branches = modules[line[0]]
    if branches is None and len(line) > 1 and _is_wide_convolution(stages[line[1]]):
        branches = {"3x3": [layer for layer in layers if layer.kind == "convolution"]}
    windowed = [name for name in line if _only_window(stages[name]) is not None]
    window = next((layer for layer in stages[windowed[-1]] if layer.kernel), None) if windowed else None
    strides = [layer.stride for layer in layers if layer.stride not in (None, (1, 1))]
    shape = shapes.get(line[-1], layers[-1].output_shape)
    return Row(
        type=_type(network, line[0], layers),
        stages=tuple(line),
        kernel=None if window is None else window.kernel,
        stride=window.stride if window is not None else (strides[0] if strides else None),
        output=_as_output(shape),
        depth=sum(_depth(network.get_submodule(name)) for name in line),
        branches=Branches() if branches is None else _channels(branches),
        parameters=sum(layer.parameters for layer in layers),
        operations=sum(layer.multiply_adds for layer in layers),
    )


def _type(network: Network, name: str, layers: Layers) -> str:
    module = network.get_submodule(name)
    if isinstance(module, Concat):
        return f"inception ({name.removeprefix('inception')})"
    if isinstance(module, nn.Sequential) and all(isinstance(block, ResidualBlock) for block in module):
        return f"{len(module)} × residual ({name})"
    if isinstance(module, nn.Dropout):
        return f"dropout ({module.p:.0%})"
    kinds = dict.fromkeys(layer.kind for layer in layers)
    named = [kind for kind in kinds if kind not in ("batch norm", "response norm", "dropout")]
    return ", ".join(named) or type(module).__name__


def _auxiliary_row(network: Network, name: str, layers: Layers) -> Row:
    return Row(
        type=f"auxiliary on {network.aux_taps[name].removeprefix('inception')}",
        stages=(name,),
        kernel=None,
        stride=None,
        output=_as_output(layers[-1].output_shape),
        depth=_depth(network.get_submodule(name)),
        branches=Branches(),
        parameters=sum(layer.parameters for layer in layers),
        operations=sum(layer.multiply_adds for layer in layers),
    )


def _total(rows: list[Row]) -> Row:
    return Row(
        type="total",
        stages=(),
        kernel=None,
        stride=None,
        output=None,
        depth=sum(row.depth for row in rows),
        branches=Branches(),
        parameters=sum(row.parameters for row in rows),
        operations=sum(row.operations for row in rows),
    )


def _notes(modules: dict[str, dict[str, Layers] | None]) -> tuple[str, ...]:
    """What stands in the 5x5 column when it is no 5x5 convolution."""
    found: dict[str, None] = {}
    for branches in modules.values():
        wide = [layer for layer in (branches or {}).get("5x5", []) if layer.kernel != (1, 1)]
        if wide and wide[0].kernel == (3, 3):
            count = "one 3×3 convolution" if len(wide) == 1 else f"{len(wide)} stacked 3×3 convolutions"
            found[f"#5×5 is {count}"] = None
    return tuple(found)


class _LeafTracer(torch.fx.Tracer):
    """Traces down to the modules that have no children."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(m.children())


def _depth(module: nn.Module) -> int:
    """Convolutions and linear layers on the longest way through."""
    if not any(module.children()):
        return int(_has_weights(module))
    depths: dict[torch.fx.Node, int] = {}
    for node in _LeafTracer().trace(module).nodes:
        deepest = max((depths[source] for source in node.all_input_nodes), default=0)
        layer = node.op == "call_module" and _has_weights(module.get_submodule(str(node.target)))
        depths[node] = deepest + layer
    return max(depths.values())


def _has_weights(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


def _as_output(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return (shape[1], shape[2], shape[0]) if len(shape) == 3 else (1, 1, shape[0])


def _sides(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}×{pair[1]}"


def _short(count: int) -> str:
    """Multiply-adds as the paper prints them: millions, or thousands below that."""
    return f"{count / 1e6:,.1f}M" if count >= 1e6 else f"{count / 1e3:,.1f}K"


def _row_dict(row: Row) -> dict[str, Any]:
    """As lists and dictionaries: JSON has no tuples."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(row).items()}
