"""A network as an ONNX graph, written layer by layer: the form that every engine reads.

The network is traced into its layers (`torch.fx`), and each becomes the one or few ONNX operators that mean
the same. An operator that is not in the table is an error, never an approximation.
"""

import operator
from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from inception.errors import UnsupportedLayerError
from inception.nets.heads import PooledHead, flatten_map
from inception.nets.layers import AvgPool, LocalResponseNorm, MaxPool, SameConv2d, same_padding
from inception.nets.network import check_input
from inception.runtime.engines import require
from inception.runtime.rewrites import SpaceToDepthConv

OPSET, IR_VERSION = 17, 10
RESPONSE_NORM_SUM = "windowed_sum"
"""How the names of the response norms' convolutions end."""
INPUT, LOGITS, PROBABILITIES = "images", "logits", "probabilities"
ResponseNormForm = Literal["banded", "operator"]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return any(isinstance(m, kinds) for kinds, _ in _LAYERS)


class _Writer:
    """Collects nodes and weights while the traced graph is walked."""

    def __init__(self, module: nn.Module, response_norm: ResponseNormForm) -> None:
        import onnx

        self._helper, self._numpy = onnx.helper, onnx.numpy_helper
        self.module, self.response_norm = module, response_norm
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.names: dict[fx.Node, str] = {}

    def add(self, kind: str, *inputs: str, name: str, **attributes: Any) -> str:
        """One operator; returns the name of its output."""
        self.nodes.append(self._helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: NDArray[Any] | Tensor | float) -> str:
        """A stored array; returns its name."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        self.initializers.append(self._numpy.from_array(np.ascontiguousarray(array), name))
        return name

    def walk(self, graph: fx.Graph) -> str:
        """Write every node; returns the name of the output."""
        for node in graph.nodes:
            if node.op == "output":
                return self.names[node.args[0]]
            if node.op == "placeholder":
                self.names[node] = INPUT
            elif node.op == "get_attr":
                value = cast(Tensor, _attribute(self.module, node.target))
                self.names[node] = self.constant(node.name, value)
            elif node.op == "call_module":
                layer = _attribute(self.module, node.target)
                self.names[node] = _write_layer(self, layer, self.operand(node, node.args[0]), node)
            else:
                self.names[node] = _write_call(self, node)
        raise UnsupportedLayerError("the network has no output")

    def operand(self, node: fx.Node, value: Any) -> str:
        """The name of an argument: another node's output, or a number as a constant."""
        if isinstance(value, fx.Node):
            return self.names[value]
        return self.constant(
            f"{node.name}_number_{len(self.initializers)}", np.asarray(value, dtype=np.float32)
        )


def _attribute(module: nn.Module, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part)
    return module


def _pair(value: Any) -> list[int]:
    return list(value) if isinstance(value, tuple) else [value, value]


def _write_layer(writer: _Writer, layer: nn.Module, x: str, node: fx.Node) -> str:
    for kinds, write in _LAYERS:
        if isinstance(layer, kinds):
            return write(writer, layer, x, node)
    raise UnsupportedLayerError(f"the layer {node.target} ({type(layer).__name__}) has no ONNX form here")


def _write_linear(writer: _Writer, layer: nn.Linear, x: str, node: fx.Node) -> str:
    weights = [writer.constant(f"{node.name}_{key}", value) for key, value in layer.named_parameters()]
    return writer.add("Gemm", x, *weights, name=node.name, transB=1)


def _write_batch_norm(writer: _Writer, layer: nn.BatchNorm2d, x: str, node: fx.Node) -> str:
    # ONNX has no batch normalisation without a factor.
    gain = torch.ones(layer.num_features) if layer.weight is None else layer.weight
    parts = (gain, layer.bias, layer.running_mean, layer.running_var)
    values = [
        writer.constant(f"{node.name}_{i}", value) for i, value in enumerate(parts) if value is not None
    ]
    return writer.add("BatchNormalization", x, *values, name=node.name, epsilon=layer.eps)


def _write_head(writer: _Writer, layer: PooledHead, x: str, node: fx.Node) -> str:
    if not layer.pooled:
        return x
    return writer.add("Flatten", writer.add("GlobalAveragePool", x, name=f"{node.name}_map"), name=node.name)


def _write_convolution(writer: _Writer, layer: nn.Conv2d, x: str, node: fx.Node) -> str:
    weights = [writer.constant(f"{node.name}_{key}", value) for key, value in layer.named_parameters()]
    vertical, horizontal = (cast(int, side) for side in layer.padding)
    pads = [vertical, horizontal, vertical, horizontal]
    if isinstance(layer, SameConv2d):
        pads = _same_pads(node, layer.kernel_size, layer.stride)
    return writer.add(
        "Conv",
        x,
        *weights,
        name=node.name,
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.stride),
        pads=pads,
        dilations=list(layer.dilation),
        group=layer.groups,
    )


def _write_space_to_depth(writer: _Writer, layer: SpaceToDepthConv, x: str, node: fx.Node) -> str:
    name = node.name
    if any(layer.fill):
        ends = writer.constant(f"{name}_fill", np.array([0] * 6 + list(layer.fill), dtype=np.int64))
        x = writer.add("Pad", x, ends, name=f"{name}_even")
    blocks = writer.add("SpaceToDepth", x, name=f"{name}_blocks", blocksize=2)
    weights = [writer.constant(f"{name}_{key}", value) for key, value in layer.conv.named_parameters()]
    left, right, top, bottom = layer.pads
    kernel = list(layer.conv.kernel_size)
    return writer.add(
        "Conv", blocks, *weights, name=name, kernel_shape=kernel, pads=[top, left, bottom, right]
    )


def _same_pads(node: fx.Node, kernel: tuple[int, ...], stride: tuple[int, ...]) -> list[int]:
    height, width = _shape(node.args[0])[2:]
    rows = same_padding(height, kernel[0], stride[0])
    columns = same_padding(width, kernel[1], stride[1])
    return [rows[0], columns[0], rows[1], columns[1]]


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(cast(fx.Node, node).meta["tensor_meta"].shape)


def _write_pool(writer: _Writer, layer: MaxPool | AvgPool, x: str, node: fx.Node) -> str:
    kernel, stride = _pair(layer.kernel), _pair(layer.stride)
    border = layer.kernel // 2 if isinstance(layer, AvgPool) else layer.border
    pads = [border if layer.stride == 1 else 0] * 4
    if isinstance(layer, MaxPool) and layer.stride > 1 and layer.padding == "same":
        pads = _same_pads(node, tuple(kernel), tuple(stride))
    common = {"kernel_shape": kernel, "strides": stride, "pads": pads}
    rounded_up = layer.padding == "ceil" or (isinstance(layer, AvgPool) and layer.padding != "floor")
    if rounded_up and layer.stride > 1:
        common["ceil_mode"] = 1  # type: ignore[assignment]
    if isinstance(layer, MaxPool):
        return writer.add("MaxPool", x, name=node.name, **common)
    counted = int(layer.count_include_pad)
    return writer.add("AveragePool", x, name=node.name, count_include_pad=counted, **common)


def _write_response_norm(writer: _Writer, layer: LocalResponseNorm, x: str, node: fx.Node) -> str:
    name = node.name
    constants = {"size": layer.size, "alpha": layer.alpha, "beta": layer.beta, "bias": layer.k}
    if writer.response_norm == "operator":
        return writer.add("LRN", x, name=name, **constants)
    band, offset = writer.constant(f"{name}_band", layer.band), writer.constant(f"{name}_k", layer.offset)
    squares = writer.add("Mul", x, x, name=f"{name}_squares")
    scale = writer.add("Conv", squares, band, offset, name=f"{name}_{RESPONSE_NORM_SUM}", kernel_shape=[1, 1])
    if layer.beta not in (0.5, 0.75):
        power = writer.constant(f"{name}_beta", np.asarray(-layer.beta, dtype=np.float32))
        return writer.add("Mul", x, writer.add("Pow", scale, power, name=f"{name}_power"), name=name)
    root = writer.add("Sqrt", scale, name=f"{name}_root")
    if layer.beta == 0.5:
        return writer.add("Div", x, root, name=name)
    product = writer.add("Mul", root, writer.add("Sqrt", root, name=f"{name}_fourth"), name=f"{name}_power")
    return writer.add("Div", x, product, name=name)


def _write_call(writer: _Writer, node: fx.Node) -> str:
    write = _CALLS.get(node.target)
    if write is None:
        raise UnsupportedLayerError(f"the operation {node.target} has no ONNX form here")
    return write(writer, node)


def _write_nothing(writer: _Writer, node: fx.Node) -> str:
    return writer.operand(node, node.args[0])


def _write_binary(writer: _Writer, node: fx.Node) -> str:
    left, right = node.args[:2]
    if node.target in (operator.mul, torch.mul) and 1.0 in (left, right):
        return writer.operand(node, right if left == 1.0 else left)
    operands = [writer.operand(node, value) for value in (left, right)]
    return writer.add(_BINARY[node.target], *operands, name=node.name)


def _write_unary(writer: _Writer, node: fx.Node) -> str:
    return writer.add(_UNARY[node.target], writer.operand(node, node.args[0]), name=node.name)


def _write_concat(writer: _Writer, node: fx.Node) -> str:
    parts = cast(list[fx.Node], node.args[0])
    return writer.add("Concat", *(writer.names[part] for part in parts), name=node.name, axis=1)


def _write_flatten(writer: _Writer, node: fx.Node) -> str:
    return writer.add("Flatten", writer.operand(node, node.args[0]), name=node.name)


def _write_slice(writer: _Writer, node: fx.Node) -> str:
    channels = cast(tuple[slice, ...], node.args[1])[1]
    bounds = [
        writer.constant(f"{node.name}_{key}", np.array([value], dtype=np.int64))
        for key, value in (("start", channels.start), ("stop", channels.stop), ("axis", 1))
    ]
    return writer.add("Slice", writer.operand(node, node.args[0]), *bounds, name=node.name)


def _means(length: int, grid: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 grid x length: row i holds the mean over PyTorch's i-th window of an adaptive pool."""
    found = np.zeros((grid, length), np.float32)
    for place in range(grid):
        start, end = place * length // grid, -(-(place + 1) * length // grid)
        found[place, start:end] = 1 / (end - start)
    return found


def _write_adaptive_pool(writer: _Writer, node: fx.Node) -> str:
    height, width = _shape(node.args[0])[2:]
    grid = cast(int, node.args[1])
    if node.target is F.adaptive_avg_pool2d and (height % grid or width % grid):
        # Windows of unequal sizes: means over rows, then over columns, as products with constant matrices.
        rows = writer.constant(f"{node.name}_rows", _means(height, grid))
        columns = writer.constant(f"{node.name}_columns", _means(width, grid).T.copy())
        over_rows = writer.add(
            "MatMul", rows, writer.operand(node, node.args[0]), name=f"{node.name}_over_rows"
        )
        return writer.add("MatMul", over_rows, columns, name=node.name)
    if node.target is not F.adaptive_avg_pool2d:
        raise UnsupportedLayerError(
            f"an adaptive pool of {height} x {width} to {grid} x {grid} has no ONNX form"
        )
    if (height, width) == (grid, grid):
        return writer.operand(node, node.args[0])
    kernel = [height // grid, width // grid]
    x = writer.operand(node, node.args[0])
    return writer.add("AveragePool", x, name=node.name, kernel_shape=kernel, strides=kernel)


_BINARY: dict[Any, str] = {
    operator.add: "Add",
    operator.sub: "Sub",
    operator.mul: "Mul",
    torch.add: "Add",
    torch.mul: "Mul",
}
_UNARY: dict[Any, str] = {F.relu: "Relu", torch.tanh_: "Tanh"}
_CALLS: dict[Any, Callable[[_Writer, fx.Node], str]] = {
    check_input: _write_nothing,
    "to": _write_nothing,
    **dict.fromkeys(_BINARY, _write_binary),
    **dict.fromkeys(_UNARY, _write_unary),
    torch.cat: _write_concat,
    torch.flatten: _write_flatten,
    flatten_map: _write_flatten,
    operator.getitem: _write_slice,
    F.adaptive_avg_pool2d: _write_adaptive_pool,
}
_LAYERS: tuple[tuple[Any, Callable[[_Writer, Any, str, fx.Node], str]], ...] = (
    ((nn.Dropout, nn.Identity), lambda writer, layer, x, node: x),
    (SpaceToDepthConv, _write_space_to_depth),
    (nn.Conv2d, _write_convolution),
    (nn.Linear, _write_linear),
    (nn.BatchNorm2d, _write_batch_norm),
    ((MaxPool, AvgPool), _write_pool),
    (LocalResponseNorm, _write_response_norm),
    (PooledHead, _write_head),
)


def to_onnx(
    module: nn.Module,
    shape: tuple[int, int, int],
    pixel_type: Literal["uint8", "float32"] = "uint8",
    *,
    response_norm: ResponseNormForm = "banded",
    temperature: float | None = None,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """A network as the bytes of an ONNX file; the number of images is free.

    Args:
        module: reads pixels N x C x H x W (`rewrites.fold_normalization`), in evaluation mode, float32.
        shape: C, H, W.
        pixel_type: of the input `images`.
        response_norm: LRN as a `banded` convolution, or as ONNX's `operator`.
        temperature: adds the output `probabilities` = softmax(logits / temperature).
        metadata: texts stored in the file.

    Raises UnsupportedLayerError for a layer that has no exact ONNX form.
    """
    require("onnx", "writing an ONNX graph")
    import onnx

    graph = _Tracer().trace(module)
    traced = fx.GraphModule(module, graph)
    with torch.no_grad():
        ShapeProp(traced).propagate(torch.zeros(1, *shape))
    writer = _Writer(module, response_norm)
    logits = writer.walk(graph)
    writer.add("Identity", logits, name=LOGITS)
    outputs = [LOGITS]
    if temperature is not None:
        divisor = writer.constant("temperature", np.asarray(temperature, dtype=np.float32))
        scaled = writer.add("Div", LOGITS, divisor, name="scaled_logits")
        outputs.append(writer.add("Softmax", scaled, name=PROBABILITIES, axis=1))
    kind = onnx.TensorProto.UINT8 if pixel_type == "uint8" else onnx.TensorProto.FLOAT
    _finish_input(writer, pixel_type)
    make = onnx.helper.make_tensor_value_info
    float32 = onnx.TensorProto.FLOAT
    model_graph = onnx.helper.make_graph(
        writer.nodes,
        "network",
        [make(INPUT, kind, ["batch", *shape])],
        [make(name, float32, ["batch", None]) for name in outputs],
        writer.initializers,
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(model_graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _finish_input(writer: _Writer, pixel_type: str) -> None:
    """Turn bytes into numbers first: the nodes that read the input read its float form instead."""
    if pixel_type == "float32":
        return
    for node in writer.nodes:
        for index, name in enumerate(node.input):
            if name == INPUT:
                node.input[index] = "pixels"
    cast_node: Callable[..., Any] = writer._helper.make_node
    writer.nodes.insert(0, cast_node("Cast", [INPUT], ["pixels"], name="pixels", to=1))
