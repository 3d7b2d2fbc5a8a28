"""A stage of a live network as chains and forks of labelled boxes, read off its traced graph."""

from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from inception.nets.heads import ConvolutionalClassifier, PooledHead
from inception.nets.layers import AvgPool, ConvBlock, LocalResponseNorm, MaxPool, ResidualBlock
from inception.nets.network import Network
from inception.study.diagram.svg import Kind
from inception.study.diagram.words import Language, say


@dataclass(frozen=True)
class Leaf:
    """One box.

    Attributes:
        lines: what it does, and what comes out.
        kind: its colour.
        channels: of its output.
        parameters: of its layer.
    """

    lines: tuple[str, ...]
    kind: Kind
    channels: int = 0
    parameters: int = 0


@dataclass(frozen=True)
class Chain:
    """Boxes and forks one after the other; empty for a shortcut."""

    parts: "tuple[Leaf | Fork, ...]"


@dataclass(frozen=True)
class Fork:
    """Branches over one input, and the box that joins them."""

    branches: tuple[Chain, ...]
    join: Leaf


Part = Leaf | Fork

# Functions that change nothing a reader of a diagram looks for.
_SILENT = {"relu", "relu_", "tanh_", "activate", "flatten", "flatten_map", "check_input", "getattr", "to"}
_FUNCTIONS: dict[str, tuple[str, Kind]] = {
    "cat": ("filter concatenation", "join"),
    "add": ("sum", "join"),
    "iadd": ("sum", "join"),
    "mean": ("global average pool", "pool"),
    "pool_to_grid": ("average pool", "pool"),
    "pool_to_at_least": ("average pool", "pool"),
    "adaptive_avg_pool2d": ("average pool", "pool"),
}
_AUXILIARY_POOLS = {"pool_to_grid", "pool_to_at_least"}


class _Tracer(fx.Tracer):
    """Traces down to convolution blocks and layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ConvBlock) or not any(m.children())


def stage_tree(module: nn.Module, shape: tuple[int, ...], language: Language = "en") -> Chain:
    """The boxes of `module` (on the meta device, in evaluation mode) for one input of `shape` C x H x W or C.

    Raises ValueError when the branches of the module do not join again.
    """
    root = nn.Sequential(module)
    traced = fx.GraphModule(root, _Tracer().trace(root))
    ShapeProp(traced).propagate(torch.empty(1, *shape, device="meta"))
    return _Reader(traced, language).chain()


def top_tree(network: Network, shape: tuple[int, ...], language: Language = "en") -> Chain:
    """The boxes behind the last stage of `network` (on the meta device), whose map has `shape`."""
    layers = [network.dropout, network.fc]
    if not isinstance(network.fc, ConvolutionalClassifier):
        layers.insert(0, network.head)
    return stage_tree(nn.Sequential(*layers), shape, language)


def repeated(module: nn.Module) -> tuple[nn.Module, int]:
    """A stage of like residual blocks as its first block and their number; any other as itself and 1."""
    blocks = list(module.children())
    if len(blocks) > 1 and all(isinstance(block, ResidualBlock) for block in blocks):
        return blocks[0], len(blocks)
    return module, 1


class _Reader:
    """Turns a traced graph into a tree."""

    def __init__(self, traced: fx.GraphModule, language: Language) -> None:
        self.traced, self.language = traced, language
        self.order = {node: place for place, node in enumerate(traced.graph.nodes)}
        self.after: dict[fx.Node, set[fx.Node]] = {}
        for node in reversed(traced.graph.nodes):
            common = [self.after[user] for user in node.users]
            self.after[node] = {node} | (set.intersection(*common) if common else set())

    def chain(self) -> Chain:
        source = next(node for node in self.traced.graph.nodes if node.op == "placeholder")
        return Chain(tuple(self._following(source, None)))

    def _following(self, node: fx.Node, stop: fx.Node | None) -> list[Part]:
        """The parts behind `node`, up to `stop`."""
        parts: list[Part] = []
        while node.users:
            users = list(node.users)
            if len(users) == 1:
                if users[0] is stop or users[0].op == "output":
                    break
                node = users[0]
                parts += self._leaf(node)
                continue
            node = self._join(users)
            parts.append(self._fork(users, node))
            if node is stop:
                break
        return parts

    def _fork(self, users: list[fx.Node], join: fx.Node) -> Fork:
        """The branches that begin at `users` and end at `join`."""
        branching = [user for user in users if user is not join]
        if 1 < len(branching) < len(users):
            inner = self._join(branching)
            if inner is not join:
                # A residual block: branches that join among themselves, beside a shortcut.
                module = (self._fork(branching, inner), *self._following(inner, join))
                return Fork((Chain(module), Chain(())), *self._leaf(join))
        branches = tuple(Chain(tuple(self._branch(user, join))) for user in users)
        return Fork(branches, *self._leaf(join))

    def _branch(self, first: fx.Node, join: fx.Node) -> list[Part]:
        return [] if first is join else [*self._leaf(first), *self._following(first, join)]

    def _join(self, users: list[fx.Node]) -> fx.Node:
        common = set.intersection(*(self.after[user] for user in users))
        joins = [node for node in common if node.op != "output"]
        if not joins:
            raise ValueError("branches that do not join cannot be drawn")
        return min(joins, key=self.order.__getitem__)

    def _leaf(self, node: fx.Node) -> list[Leaf]:
        """The box of a node; none for those that say nothing."""
        shape = node.meta["tensor_meta"].shape
        channels = int(shape[1])
        if node.op == "call_module":
            layer = self.traced.get_submodule(str(node.target))
            words, kind = _layer_words(layer, self.language)
            parameters = sum(parameter.numel() for parameter in layer.parameters())
            lines = (words, *self._second(layer, channels))
            return [Leaf(lines, kind, channels, parameters)] if words else []
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if name in ("mul", "imul"):
            factor = next((value for value in node.args if isinstance(value, float)), None)
            return [] if factor is None or factor == 1.0 else [Leaf((f"× {factor:g}",), "plain", channels)]
        if name in _SILENT or name not in _FUNCTIONS:
            return []
        source = node.args[0]
        before = source.meta["tensor_meta"].shape if isinstance(source, fx.Node) else None
        if name == "adaptive_avg_pool2d" and before == shape:
            # AlexNet's and VGG's: it does something only where images are not of the network's size.
            return []
        text, kind = _FUNCTIONS[name]
        words = say(text, self.language)
        if name in _AUXILIARY_POOLS:
            side = "×".join(map(str, shape[2:]))
            return [Leaf((f"{words} 5×5/3", f"{side}×{channels}"), kind, channels)]
        return [Leaf((words, self._count(channels)) if kind == "join" else (words,), kind, channels)]

    def _second(self, layer: nn.Module, channels: int) -> tuple[str, ...]:
        return (self._count(channels),) if isinstance(layer, ConvBlock | nn.Conv2d) else ()

    def _count(self, channels: int) -> str:
        return f"{channels:,} {say('channels', self.language)}"


def _layer_words(layer: nn.Module, language: Language) -> tuple[str, Kind]:
    """What a layer is called, and its colour; "" for what is not drawn."""
    conv = layer.conv if isinstance(layer, ConvBlock) else layer
    if isinstance(conv, nn.Conv2d):
        sides = (conv.kernel_size[0], conv.kernel_size[1])
        name = say("convolution" if isinstance(layer, ConvBlock) or sides != (1, 1) else "linear", language)
        kind: Kind = "reduction" if sides == (1, 1) else "convolution"
        return f"{_window(sides, conv.stride[0])} {name}", kind
    if isinstance(layer, MaxPool | AvgPool):
        name = say("max pool" if isinstance(layer, MaxPool) else "average pool", language)
        return f"{_window((layer.kernel, layer.kernel), layer.stride)} {name}", "pool"
    return _flat_words(layer, language)


def _flat_words(layer: nn.Module, language: Language) -> tuple[str, Kind]:
    """The same for layers without a window."""
    words: tuple[str, Kind] = ("", "plain")
    if isinstance(layer, LocalResponseNorm):
        words = (say("response norm", language), "plain")
    elif isinstance(layer, nn.Linear):
        words = (f"{say('fully connected', language)} {layer.out_features:,}", "dense")
    elif isinstance(layer, nn.Dropout) and layer.p:
        words = (f"dropout {layer.p:.0%}", "plain")
    elif isinstance(layer, PooledHead) and layer.pooled:
        words = (say("global average pool", language), "pool")
    return words


def _window(sides: tuple[int, int], stride: int) -> str:
    return f"{sides[0]}×{sides[1]}" + (f"/{stride}" if stride > 1 else "")
