"""An ONNX graph as the native engine's layers and weights."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from inception.errors import UnsupportedLayerError
from inception.runtime.native import packing
from inception.runtime.native.layers import LANES, PIXELS, Layer, Shape, shape_of, shapes_of
from inception.runtime.native.packing import Floats
from inception.runtime.native.places import (
    half_products,
    pixel_depth,
    slots_of,
    tile_points,
    weight_spans,
)


class Network(NamedTuple):
    """What a graph computes.

    Attributes:
        layers: in order.
        pixels: shape of an image.
        kernels: out x in x rows x columns, by the name of the convolution's output.
        biases: likewise.
        center: what is subtracted from the pixels, one value a channel; None: nothing.
    """

    layers: tuple[Layer, ...]
    pixels: Shape
    kernels: dict[str, Floats]
    biases: dict[str, Floats]
    center: Floats | None


class _Reader:
    def __init__(self, graph: bytes) -> None:
        import onnx

        model = onnx.load_from_string(graph)
        self._helper = onnx.helper
        self.nodes = list(model.graph.node)
        self.constants = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
        dims = model.graph.input[0].type.tensor_type.shape.dim
        self.pixels = Shape(*(dim.dim_value for dim in dims[1:]))
        self.names = {model.graph.input[0].name: PIXELS}
        self.layers: list[Layer] = []
        self.shapes = {PIXELS: self.pixels}
        self.kernels: dict[str, Floats] = {}
        self.biases: dict[str, Floats] = {}
        self.center: Floats | None = None
        self.written = ""

    def read(self) -> Network:
        for node in self.nodes:
            attributes = {item.name: self._helper.get_attribute_value(item) for item in node.attribute}
            self._node(node, attributes)
        try:
            shapes_of(tuple(self.layers), self.pixels)
        except ValueError as error:
            raise UnsupportedLayerError(str(error)) from error
        return Network(tuple(self.layers), self.pixels, self.kernels, self.biases, self.center)

    def _node(self, node: Any, attributes: dict[str, Any]) -> None:
        kind, output = node.op_type, node.output[0]
        inputs = [self.names[name] for name in node.input if name in self.names]
        if kind in ("Cast", "Identity", "Flatten", "Relu", "Sub"):
            self.names[output] = self._same(node, inputs[0])
        elif kind in ("Conv", "Gemm"):
            self._add(self._convolution(node, attributes, inputs[0]))
        elif kind == "Add":
            self.names[output] = self._sum(node, inputs)
        elif kind in ("MaxPool", "AveragePool", "GlobalAveragePool"):
            self._add(self._pool(kind, attributes, inputs[0], output))
        elif kind == "Concat" and attributes["axis"] == 1:
            self._add(Layer("concat", tuple(inputs), output))
        elif kind == "LRN":
            self._add(_response_norm(attributes, inputs[0], output))
        else:
            raise UnsupportedLayerError(f"the native engine has no {kind} as the network has it")

    def _add(self, layer: Layer) -> None:
        self.layers.append(layer)
        self.names[layer.output] = layer.output
        self.written = layer.output  # the value that the last layer is, by the graph's name
        try:
            self.shapes[layer.output] = shape_of(layer, self.shapes)
        except ValueError as error:
            raise UnsupportedLayerError(str(error)) from error

    def _same(self, node: Any, source: str) -> str:
        """Operators that become part of the layer before them."""
        if node.op_type == "Relu":
            self._last_convolution(source, "ReLU")
            self.layers[-1] = self._changed(relu=True)
            self.written = node.output[0]
        elif node.op_type == "Sub":
            if source != PIXELS or node.input[1] not in self.constants:
                raise UnsupportedLayerError("a subtraction from what is no image")
            center = np.asarray(self.constants[node.input[1]], dtype=np.float32).reshape(-1)
            self.center = np.ascontiguousarray(np.broadcast_to(center, self.pixels.channels))
        return source

    def _last_convolution(self, source: str, what: str) -> None:
        last = self.layers[-1]
        free = last.kind == "convolution" and last.output == source and not last.relu
        if not free or self._readers(self.written) != 1:
            raise UnsupportedLayerError(f"{what} that does not follow a convolution")

    def _readers(self, name: str) -> int:
        """How many operators read a value, those behind another name of it included."""
        total = 0
        for node in self.nodes:
            if name in node.input:
                again = node.op_type in ("Cast", "Identity", "Flatten")
                total += self._readers(node.output[0]) if again else list(node.input).count(name)
        return total

    def _changed(self, **values: Any) -> Layer:
        return replace(self.layers[-1], **values)

    def _sum(self, node: Any, inputs: list[str]) -> str:
        last = self.layers[-1].output
        if len(inputs) != 2 or last not in inputs or self.layers[-1].added is not None:
            raise UnsupportedLayerError("an addition that does not follow a convolution")
        self._last_convolution(last, "an addition")
        added = inputs[1 - inputs.index(last)]
        if self.shapes[added] != self.shapes[last]:
            raise UnsupportedLayerError("an addition of maps of different shapes")
        self.layers[-1] = self._changed(added=added)
        self.written = node.output[0]
        return last

    def _convolution(self, node: Any, attributes: dict[str, Any], source: str) -> Layer:
        kernel = np.asarray(self.constants[node.input[1]], dtype=np.float32)
        shape = self.shapes[source]
        if node.op_type == "Gemm":  # over the flattened map: its rows, columns and channels are the map's
            usual = (
                attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == attributes.get("transB") == 1
            )
            if not usual or attributes.get("transA"):
                raise UnsupportedLayerError("a Gemm that is no linear layer")
            kernel = kernel.reshape(len(kernel), *shape)
        if attributes.get("group", 1) != 1 or set(attributes.get("dilations", [1])) != {1}:
            raise UnsupportedLayerError("a convolution in groups, or dilated")
        output = node.output[0]
        zeros = np.zeros(len(kernel), dtype=np.float32)
        self.kernels[output] = kernel
        bias = self.constants[node.input[2]] if len(node.input) > 2 else zeros
        self.biases[output] = np.asarray(bias, dtype=np.float32)
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise UnsupportedLayerError(f"weights that are not finite ({output})")
        return Layer(
            "convolution",
            (source,),
            output,
            channels=len(kernel),
            kernel=(kernel.shape[2], kernel.shape[3]),
            stride=tuple(attributes.get("strides", (1, 1))),
            pads=tuple(attributes.get("pads", (0, 0, 0, 0))),
        )

    def _pool(self, kind: str, attributes: dict[str, Any], source: str, output: str) -> Layer:
        if kind == "GlobalAveragePool":
            return Layer("global_average_pool", (source,), output)
        pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
        counted = bool(attributes.get("count_include_pad", 0))
        if counted and len(set(pads)) != 1:
            raise UnsupportedLayerError("an average pool that counts unequal padding")
        return Layer(
            "max_pool" if kind == "MaxPool" else "average_pool",
            (source,),
            output,
            kernel=tuple(attributes["kernel_shape"]),
            stride=tuple(attributes.get("strides", (1, 1))),
            pads=pads,
            ceil_mode=bool(attributes.get("ceil_mode", 0)),
            count_include_pad=counted,
        )


def _response_norm(attributes: dict[str, Any], source: str, output: str) -> Layer:
    size, beta = attributes["size"], attributes["beta"]
    if beta not in (0.5, 0.75) or size % 2 == 0:
        raise UnsupportedLayerError(f"a response norm over {size} channels to the power of {beta}")
    alpha, offset = attributes["alpha"] / size, attributes["bias"]
    return Layer("response_norm", (source,), output, size=size, alpha=alpha, offset=offset, beta=beta)


def read_graph(graph: bytes) -> Network:
    """The layers and weights of an ONNX graph that reads uint8 pixels.

    Raises UnsupportedLayerError for what the engine does not have.
    """
    return _Reader(graph).read()


def packed_weights(network: Network, half: bool) -> bytes:
    """All kernels and biases as the engine reads them, and the images' centre before them."""
    shapes = shapes_of(network.layers, network.pixels)
    slots = slots_of(network.layers, shapes)
    spans, size = weight_spans(network.layers, shapes, slots, half)
    result = np.zeros(size, dtype=np.uint8)
    if network.center is not None:
        result[: 4 * len(network.center)] = network.center.view(np.uint8)
    for layer in network.layers:
        if layer.kind != "convolution":
            continue
        span, outputs = spans[layer.output], slots[layer.output]
        count = packing.blocks_of(outputs) * LANES
        bias = packing.padded(network.biases[layer.output], outputs, count, axis=0)
        kernel = packing.padded(network.kernels[layer.output], outputs, count, axis=0)
        kernel = _packed(layer, kernel, slots[layer.source], network.pixels.channels, half)
        stored = packing.to_bfloat16(kernel) if half_products(layer, half) else kernel
        result[span.kernel : span.kernel + span.kernel_bytes] = stored.view(np.uint8)
        result[span.bias : span.bias + span.bias_bytes] = bias.view(np.uint8)
    return result.tobytes()


def _packed(layer: Layer, kernel: Floats, slots: list[int], channels: int, half: bool) -> Floats:
    if layer.source == PIXELS:
        return packing.interleaved(kernel, pixel_depth(layer, channels, half), half)
    kernel = packing.padded(kernel, slots, packing.blocks_of(slots) * LANES, axis=1)
    if layer.method == "direct":
        return packing.direct(kernel, half)
    return packing.winograd(kernel, tile_points(layer), half_products(layer, half))
