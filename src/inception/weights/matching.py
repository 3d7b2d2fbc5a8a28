"""A file's tensors under our names and in our layout, and what did not fit."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from inception.errors import UsageError
from inception.nets.network import Network
from inception.weights.formats.foreign import Foreign
from inception.weights.sources.choose import find, layers_by_order
from inception.weights.sources.source import Layout, Source, split_name

CLASSIFIERS = ("fc", "fc2")
"""Last parts of the names of layers with one output a class."""
PAIR: Literal["pair"] = "pair"
"""One output that says yes or no by its sigmoid becomes two: a zero, and itself."""
Kept = slice | Literal["pair"] | None
"""Which of the file's outputs are kept; None: all."""
_HEAD = re.compile(r"(?:fc|head|heads|classifier|last_linear|classif|logits|Logits|predictions|loss3)\b")


@dataclass(frozen=True)
class ImportReport:
    """What did not fit.

    Attributes:
        missing: our tensors that the file does not have.
        unexpected: the file's tensors that the network has no place for.
        mis_shaped: (our name, shape in the file, shape wanted).
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mis_shaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    @property
    def complete(self) -> bool:
        """Every tensor of the network was found in its right shape."""
        return not self.missing and not self.mis_shaped


def describe(report: ImportReport, limit: int = 8) -> str:
    """One line naming the tensors that did not fit, the head's first, at most `limit` of each kind."""
    shapes = [f"{name} {list(got)} for {list(want)}" for name, got, want in report.mis_shaped]
    parts = {"missing": report.missing, "mis-shaped": shapes, "unexpected": report.unexpected}
    texts = []
    for kind, found in parts.items():
        if found:
            names = sorted(found, key=lambda name: _HEAD.match(name) is None)
            rest = f" and {len(names) - limit} more" if len(names) > limit else ""
            texts.append(f"{len(names)} {kind} ({', '.join(names[:limit])}{rest})")
    return "; ".join(texts) or "every tensor fits"


def outputs_in_file(source: Source, foreign: Foreign, names: Iterable[str]) -> int | None:
    """How many outputs the file's classifier has; None when it has no classifier."""
    names = list(names)
    layers = layers_by_order(names, foreign) if source.by_order else source.layers
    for ours in ("fc.bias", "fc.cccp2.conv.bias", "fc.weight"):
        theirs = find(source, layers, ours, foreign.tensors)
        if theirs is not None and foreign.tensors[theirs].dim():
            shape = foreign.tensors[theirs].shape
            if ours.endswith("bias"):
                return max(shape)  # Caffe writes a vector as 1 x 1 x 1 x N
            return shape[-1 if source.layout == "tensorflow" else 0]
    return None


def match_tensors(
    network: Network, foreign: Foreign, source: Source, rows: Kept = None
) -> tuple[dict[str, Tensor], ImportReport]:
    """Every tensor of `network` (which may be on the meta device) that the file has.

    `rows` are the outputs of the file's classifiers that are kept; None: all.
    """
    wanted = network.state_dict()
    layers = layers_by_order(list(wanted), foreign) if source.by_order else source.layers
    matched: dict[str, Tensor] = {}
    missing: list[str] = []
    mis_shaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    used: set[str] = set()
    for name, ours in wanted.items():
        theirs = find(source, layers, name, foreign.tensors)
        if theirs is None:
            value = _replacement(network, source, layers, name, foreign.tensors, used)
            if value is None:
                missing.append(name)
                continue
        else:
            used.add(theirs)
            value = _in_our_layout(foreign.tensors[theirs], name, tuple(ours.shape), source, rows)
            value = _with_our_epsilon(value, theirs, name, network, foreign.tensors)
        if value.shape == ours.shape:
            matched[name] = value.to(ours.dtype).contiguous()
        else:
            mis_shaped.append((name, tuple(value.shape), tuple(ours.shape)))
    unexpected = sorted(name for name in set(foreign.tensors) - used if not name.endswith(".epsilon"))
    return matched, ImportReport(tuple(missing), tuple(unexpected), tuple(mis_shaped))


def _in_our_layout(value: Tensor, name: str, shape: tuple[int, ...], source: Source, rows: Kept) -> Tensor:
    layer, role = split_name(name)
    if role.endswith("weight") and not role.startswith("bn."):
        value = to_torch_layout(value, source.layout, source.grids.get(layer), role == "depthwise.weight")
    if rows is not None and layer.rpartition(".")[2] in CLASSIFIERS:
        value = _pair(value, shape) if rows == PAIR else value[rows]
    if value.shape != shape and value.numel() == torch.Size(shape).numel():
        # Caffe keeps linear layers as 1 x 1 x O x I, others keep them as 1x1 convolutions.
        if [side for side in value.shape if side != 1] == [side for side in shape if side != 1]:
            value = value.reshape(shape)
        elif value.dim() == 4 and len(shape) == 2 and value.shape[0] == shape[0]:
            value = value.flatten(1)
    return value


def _pair(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Weights or bias of one output as those of two whose softmax is (1 - sigmoid, sigmoid) of it."""
    if 2 * value.numel() != torch.Size(shape).numel():
        return value
    row = value.reshape(1, *shape[1:])
    return torch.cat((torch.zeros_like(row), row))


def to_torch_layout(
    value: Tensor, layout: Layout, grid: tuple[int, int] | None = None, depthwise: bool = False
) -> Tensor:
    """Weights of a convolution or a linear layer in PyTorch's layout.

    Args:
        value: 4-D or 2-D weights.
        layout: theirs.
        grid: for a linear layer over a map flattened in H, W, C order, the map's height and width.
        depthwise: a depthwise convolution, H x W x C x multiplier in TensorFlow.
    """
    if layout == "output_first" and value.dim() == 4:
        return value.permute(0, 3, 1, 2)
    if layout == "tensorflow" and value.dim() == 4:
        if depthwise:
            height, width, channels, multiplier = value.shape
            return value.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
        return value.permute(3, 2, 0, 1)
    if layout == "tensorflow" and value.dim() == 2:
        if grid is not None and value.shape[0] % (grid[0] * grid[1]) == 0:
            return value.reshape(*grid, -1, value.shape[1]).permute(3, 2, 0, 1).flatten(1)
        return value.t()
    return value


def _with_our_epsilon(
    value: Tensor, theirs: str, name: str, network: Network, tensors: Mapping[str, Tensor]
) -> Tensor:
    """A variance such that our epsilon gives the same as theirs: var + their epsilon - ours."""
    epsilon = tensors.get(theirs.rpartition(".")[0] + ".epsilon")
    if epsilon is None or not name.endswith("bn.running_var"):
        return value
    norm = network.get_submodule(name.removesuffix(".running_var"))
    return value.double() + float(epsilon) - norm.eps if isinstance(norm, nn.BatchNorm2d) else value


def _replacement(
    network: Network,
    source: Source,
    layers: Mapping[str, str],
    name: str,
    tensors: Mapping[str, Tensor],
    used: set[str],
) -> Tensor | None:
    """What stands for a tensor that the tool does not keep; None where it is really missing."""
    layer, role = split_name(name)
    shape = network.state_dict()[name].shape
    if role == "bn.num_batches_tracked":  # absent from files of 2017
        return torch.zeros(shape, dtype=torch.int64)
    if role.startswith("bn."):
        folded = _folded_norm(network, source, layers, layer, role, tensors, used)
        if folded is not None:
            return folded
    if role in source.defaults and find(source, layers, f"{layer}.conv.weight", tensors) is not None:
        return torch.full(shape, source.defaults[role])
    return None


def _folded_norm(
    network: Network,
    source: Source,
    layers: Mapping[str, str],
    layer: str,
    role: str,
    tensors: Mapping[str, Tensor],
    used: set[str],
) -> Tensor | None:
    """For a file whose normalisation was folded into its convolution: the identity, with their bias.

    With mean 0, variance 1 and factor sqrt(1 + epsilon) a batch normalisation only adds its shift.
    """
    if source.formats[0] not in ("caffe", "onnx") or find(
        source, layers, f"{layer}.bn.running_mean", tensors
    ):
        return None
    bias = find(source, layers, f"{layer}.conv.bias", tensors)
    norm = network.get_submodule(f"{layer}.bn")
    if bias is None or not isinstance(norm, nn.BatchNorm2d):
        return None
    count = tensors[bias].numel()
    if role == "bn.bias":
        if f"{layer}.conv.bias" in network.state_dict():
            return torch.zeros(count)
        used.add(bias)
        return tensors[bias].flatten()
    values = {"bn.weight": (1.0 + norm.eps) ** 0.5, "bn.running_mean": 0.0, "bn.running_var": 1.0}
    return torch.full((count,), values[role])


def channels_in_file(network: Network, source: Source, foreign: Foreign) -> int:
    """How many channels the file's first convolution takes; 3 where that cannot be told."""
    wanted = network.state_dict()
    layers = layers_by_order(list(wanted), foreign) if source.by_order else source.layers
    name = next(name for name in wanted if name.endswith("weight"))
    theirs, ours = find(source, layers, name, foreign.tensors), wanted[name]
    depthwise = name.endswith("depthwise.weight")
    if theirs is None or foreign.tensors[theirs].dim() != 4 or network.in_chans != 3:
        return network.in_chans
    value = to_torch_layout(foreign.tensors[theirs], source.layout, depthwise=depthwise)
    if depthwise:
        times = ours.shape[0] // network.in_chans
        return value.shape[0] // times if value.shape[1:] == ours.shape[1:] else network.in_chans
    alike = value.shape[0] == ours.shape[0] and value.shape[2:] == ours.shape[2:]
    return value.shape[1] if alike else network.in_chans


def kept_rows(outputs: int | None, source: Source, background: str | None) -> tuple[Kept, str | None]:
    """Which of the file's outputs are kept, and a sentence about it.

    Args:
        outputs: outputs of the file's classifier.
        source: whose file it is.
        background: `drop` or `keep` outputs that are no class; None: drop output 0 of 1001.

    Raises UsageError when there is nothing that could be dropped.
    """
    if outputs == 1 and background != "drop":
        return PAIR, "one output, by its sigmoid: two classes, the first label stands for 0, the second for 1"
    if background == "drop" and outputs not in (1001, 1008):
        raise UsageError(f"the file has {outputs} outputs: only of 1001 or 1008 are some no classes")
    if outputs == 1001 and (background == "drop" or (background is None and source.background)):
        return slice(1, 1001), "output 0 of 1001 (background) dropped"
    if outputs == 1008 and background == "drop":
        return slice(1, 1001), "outputs 0 and 1001 to 1007 of 1008 (no classes) dropped"
    return None, f"all {outputs} outputs kept, 0 is background" if outputs == 1001 else None
