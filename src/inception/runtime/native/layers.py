"""What the native engine computes, as data: layers over named maps, checked before anything runs.

The list comes from a file that anyone may have written, so everything that decides where memory is read or
written is worked out here from sizes that have been checked; nothing in the file is a place in memory.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

Method = Literal["direct", "winograd2", "winograd4"]
Kind = Literal["convolution", "max_pool", "average_pool", "global_average_pool", "response_norm", "concat"]
LANES = 16
"""Channels in a block."""
WINOGRAD: dict[tuple[int, int], tuple[Method, ...]] = {
    (3, 3): ("winograd2", "winograd4"),
    (1, 3): ("winograd2", "winograd4"),
    (3, 1): ("winograd2", "winograd4"),
    (5, 5): ("winograd2",),
    (1, 7): ("winograd4",),
    (7, 1): ("winograd4",),
}
"""Kernels that minimal filtering can compute, and how many outputs a side of a tile has."""
PIXELS = "pixels"
"""The map that the images are."""
MOST = 1 << 16
"""No size in a network's description is larger."""
MOST_PADDING = 64
"""Of a side."""
MOST_LAYERS, MOST_CHANNELS = 2048, 1 << 20
"""Nor has it more layers, or more channels in all maps together."""
MOST_VALUES = 1 << 31
"""Nor is a map or a kernel of more values."""
MOST_POOLED = 1024
"""Columns of a map that is pooled."""
MOST_NORMED, MOST_WINDOW = 4096, 64
"""Channels and window of a response norm that the engine has room for."""


class Shape(NamedTuple):
    """Of one image's map."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Layer:
    """One step of the network.

    Attributes:
        kind: see `Kind`. A fully connected layer is a convolution over its whole map.
        inputs: maps it reads: several for `concat`, else one.
        output: the map it makes.
        channels: of the output of a convolution.
        kernel, stride: rows and columns.
        pads: top, left, bottom, right.
        relu: whether a convolution ends with it.
        added: a map added to a convolution's outputs before ReLU.
        method: how a convolution is computed.
        ceil_mode: a pool's last window may reach beyond the padding, as in PyTorch.
        count_include_pad: an average pool counts its padding.
        size, alpha, offset, beta: response norm: x (offset + alpha * sum over `size` channels of x^2)^-beta,
            where beta is 0.5 or 0.75.
    """

    kind: Kind
    inputs: tuple[str, ...]
    output: str
    channels: int = 0
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    relu: bool = False
    added: str | None = None
    method: Method = "direct"
    ceil_mode: bool = False
    count_include_pad: bool = False
    size: int = 0
    alpha: float = 0.0
    offset: float = 0.0
    beta: float = 0.75

    @property
    def source(self) -> str:
        """The map it reads, where it reads one."""
        return self.inputs[0]

    def tile(self) -> tuple[int, int]:
        """Rows and columns of outputs that are computed together; (1, 1) by the direct method."""
        side = {"direct": 1, "winograd2": 2, "winograd4": 4}[self.method]
        return (side if self.kernel[0] > 1 else 1, side if self.kernel[1] > 1 else 1)

    def methods(self) -> tuple[Method, ...]:
        """The methods that can compute it."""
        plain = self.kind == "convolution" and self.stride == (1, 1) and self.added is None
        return ("direct", *(WINOGRAD.get(self.kernel, ()) if plain and self.source != PIXELS else ()))

    def to_json(self) -> dict[str, Any]:
        """Only what differs from the defaults."""
        plain = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != plain[name]}


_LISTS: dict[str, type] = {"inputs": str, "kernel": int, "stride": int, "pads": int}
_SINGLE: dict[str, type] = {"channels": int, "size": int, "alpha": float, "offset": float, "beta": float}


def layer_from_json(values: Any) -> Layer:
    """A layer as `to_json` wrote it. Raises ValueError, TypeError or LookupError for anything else."""
    if not isinstance(values, dict):
        raise TypeError(f"a layer is {values!r:.60}")
    given: dict[str, Any] = {
        name: tuple(value) if name in _LISTS and type(value) is list else value
        for name, value in values.items()
    }
    layer = Layer(**given)
    for name, kind in (_LISTS | _SINGLE).items():
        value = getattr(layer, name)
        items = value if name in _LISTS else (value,)
        if type(items) is not tuple or not all(type(item) is kind for item in items):
            raise ValueError(f"{name} of a layer is {value!r:.60}")
    known = layer.kind in get_args(Kind) and layer.method in get_args(Method)
    lengths = (len(layer.kernel), len(layer.stride), len(layer.pads))
    numbers = (*layer.kernel, *layer.stride, *layer.pads, layer.channels, layer.size)
    if not known or lengths != (2, 2, 4) or not all(0 <= number <= MOST for number in numbers):
        raise ValueError(f"a layer of kind {layer.kind!r:.60} has sizes that cannot be")
    if any(type(value) is not bool for value in (layer.relu, layer.ceil_mode, layer.count_include_pad)):
        raise ValueError(f"a layer of kind {layer.kind!r:.60} has a switch that is no truth value")
    if type(layer.output) is not str or type(layer.added) not in (str, type(None)):
        raise ValueError(f"a layer of kind {layer.kind!r:.60} has no name for its output")
    if layer.added == PIXELS or (layer.count_include_pad and len(set(layer.pads)) != 1):
        raise ValueError(f"the layer {layer.output!r:.60} adds images, or counts unequal padding")
    if max(layer.pads) > MOST_PADDING:
        raise ValueError(f"the padding of {layer.output!r:.60} is more than {MOST_PADDING}")
    if min(*layer.kernel, *layer.stride) < 1 or not layer.inputs:
        raise ValueError(f"a layer of kind {layer.kind!r:.60} has no kernel or no input")
    if layer.method not in layer.methods():
        raise ValueError(f"a convolution of {layer.kernel} cannot be computed by {layer.method}")
    return layer


def shapes_of(layers: tuple[Layer, ...], pixels: Shape) -> dict[str, Shape]:
    """The shape of every map. Raises ValueError where layers do not fit together."""
    shapes = {PIXELS: pixels}
    if len(layers) > MOST_LAYERS:
        raise ValueError(f"{len(layers)} layers, more than {MOST_LAYERS}")
    for layer in layers:
        shapes[layer.output] = shape_of(layer, shapes)
    if sum(shapes[layer.output].channels for layer in layers) > MOST_CHANNELS:
        raise ValueError(f"more than {MOST_CHANNELS} channels in all maps")
    return shapes


def shape_of(layer: Layer, shapes: dict[str, Shape]) -> Shape:
    """The shape of a layer's output, given the maps before it. Raises ValueError where it does not fit."""
    if layer.output in shapes:
        raise ValueError(f"two layers make the map {layer.output!r:.60}")
    missing = [name for name in (*layer.inputs, layer.added) if name is not None and name not in shapes]
    if missing:
        raise ValueError(f"no layer before {layer.output!r:.60} makes {missing[0]!r:.60}")
    shape = _output_shape(layer, [shapes[name] for name in layer.inputs])
    kernel = math.prod(layer.kernel) * shape.channels * shapes[layer.source].channels
    if min(shape) < 1 or max(math.prod(shape), kernel) > MOST_VALUES:
        raise ValueError(f"the map {layer.output!r:.60} would be {' x '.join(map(str, shape))}")
    if layer.added is not None and (layer.kind != "convolution" or shapes[layer.added] != shape):
        raise ValueError(f"what is added to {layer.output!r:.60} has another shape")
    return shape


def _output_shape(layer: Layer, inputs: list[Shape]) -> Shape:
    first = inputs[0]
    if layer.kind == "concat":
        if any(shape[1:] != first[1:] for shape in inputs):
            raise ValueError(f"the parts of {layer.output!r:.60} have different sizes")
        return first._replace(channels=sum(shape.channels for shape in inputs))
    if len(inputs) != 1:
        raise ValueError(f"{layer.output!r:.60} has several inputs")
    if layer.kind != "convolution" and max(*layer.kernel, first.width) > MOST_POOLED:
        raise ValueError(f"{layer.output!r:.60} pools more than {MOST_POOLED} columns")
    if layer.kind == "global_average_pool":
        return Shape(first.channels, 1, 1)
    if layer.kind == "response_norm":
        fits = (
            layer.offset > 0
            and layer.size % 2 == 1
            and layer.size <= MOST_WINDOW
            and first.channels <= MOST_NORMED
        )
        if not fits or layer.beta not in (0.5, 0.75):
            raise ValueError(f"the response norm {layer.output!r:.60} is none that the engine has")
        return first
    height, width = (_side(layer, axis, first[1 + axis]) for axis in (0, 1))
    return Shape(layer.channels if layer.kind == "convolution" else first.channels, height, width)


def _side(layer: Layer, axis: int, side: int) -> int:
    kernel, stride = layer.kernel[axis], layer.stride[axis]
    before, after = layer.pads[axis], layer.pads[axis + 2]
    is_pool = layer.kind != "convolution"
    if is_pool and max(before, after) >= kernel:
        raise ValueError(f"the padding of {layer.output!r:.60} is as large as its window")
    room = side + before + after - kernel
    count = (-(room // -stride) if layer.ceil_mode and is_pool else room // stride) + 1
    # A window must begin within the map or the padding before it.
    return count - 1 if is_pool and count > 1 and (count - 1) * stride >= side + before else count
