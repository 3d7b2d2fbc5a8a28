"""ONNX models without the onnx package: weights by layer, in the order of the computation.

Source of the message layouts: onnx/onnx.proto. What exporters split or fold is put together again: batch
normalisation and the scale behind it belong to the convolution before them.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from inception.errors import UsageError, WeightsError
from inception.weights.formats import wire
from inception.weights.formats.foreign import (
    Allowance,
    Foreign,
    checked_shape,
    reading,
    tensor_from_bytes,
)

DTYPES = {1: "<f4", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8", 16: "bfloat16"}
ITEM_BYTES = {"<f4": 4, "<i4": 4, "<i8": 8, "<f2": 2, "<f8": 8, "bfloat16": 2}
LAYER_TYPES = ("Conv", "Gemm", "MatMul")
# Ends of initialisers' names that say which tensor of its layer it is: Caffe2's, and PyTorch's.
WEIGHT_ENDINGS = ("_w_0", ".conv.weight", ".weight", "_weight", "/weight")


@dataclass
class _Node:
    op: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    floats: dict[str, float] = field(default_factory=dict)
    integers: dict[str, int] = field(default_factory=dict)
    value: memoryview | None = None


def read_onnx(path: Path) -> Foreign:
    """Every layer's tensors: `<layer>.weight`, `.bias`, `.mean`, `.variance`, `.epsilon`, `.scale`, `.shift`.

    A layer is named after its weight (`conv1/7x7_s2_w_0`, `features.0.weight`). Weights stored beside the
    model (`<file>.data`) are read too. Raises WeightsError when the file is damaged or no ONNX model.
    """
    return reading(path, "an ONNX model", lambda: _read(path))


def _read(path: Path) -> Foreign:
    data = memoryview(path.read_bytes())
    graph = dict(wire.fields(data)).get(7)
    if graph is None:
        raise WeightsError(f"{path} is not an ONNX model: it has no graph")
    reader = _Reader(path, len(data))
    nodes: list[_Node] = []
    for number, value in wire.fields(wire.as_bytes(graph)):
        if number == 1:
            nodes.append(_node(wire.as_bytes(value)))
        elif number == 5:
            reader.add(wire.as_bytes(value))
    return _layers(path, nodes, reader)


def _node(message: memoryview) -> _Node:
    node = _Node()
    for number, value in wire.fields(message):
        if number == 1:
            node.inputs.append(wire.as_text(value))
        elif number == 2:
            node.outputs.append(wire.as_text(value))
        elif number == 4:
            node.op = wire.as_text(value)
        elif number == 5:
            attribute = dict(wire.fields(wire.as_bytes(value)))
            name = wire.as_text(attribute.get(1, memoryview(b"")))
            if 2 in attribute:
                node.floats[name] = float(wire.floats([wire.as_bytes(attribute[2])], "<f4")[0])
            if 3 in attribute:
                node.integers[name] = wire.as_int(attribute[3])
            if 5 in attribute:
                node.value = wire.as_bytes(attribute[5])
    return node


class _Reader:
    """Constants of the graph by name, decoded from ONNX's TensorProto."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.allowance = Allowance(path, size)
        self.constants: dict[str, Tensor] = {}
        self.origins: dict[str, str] = {}
        self.outside: dict[str, memoryview] = {}

    def add(self, message: memoryview, name: str = "") -> None:
        """Decode one tensor; kinds that hold no weights are left out."""
        sides: list[int] = []
        parts: dict[int, list[memoryview]] = {}
        dtype = outside = 0
        location: dict[str, str] = {}
        for number, value in wire.fields(message):
            if number == 1:
                sides += wire.integers(value)
            elif number == 2:
                dtype = wire.as_int(value)
            elif number == 8 and not name:
                name = wire.as_text(value)
            elif number in (4, 9, 10):
                parts.setdefault(number, []).append(wire.as_bytes(value))
            elif number == 13:
                entry = dict(wire.fields(wire.as_bytes(value)))
                location[wire.as_text(entry[1])] = wire.as_text(entry[2])
            elif number == 14:
                outside = wire.as_int(value)
        if dtype not in DTYPES:
            return
        shape = checked_shape(self.path, name, sides)
        data = self._outside(name, location) if outside else self._inside(parts, dtype)
        if data is not None:
            kind = {4: "<f4", 10: "<f8"}.get(next(iter(parts), 9), DTYPES[dtype])
            if not outside:
                self.allowance.take(name, math.prod(shape) * ITEM_BYTES[kind])
            self.constants[name] = tensor_from_bytes(self.path, name, data, kind, shape)

    def _inside(self, parts: dict[int, list[memoryview]], dtype: int) -> memoryview | None:
        if not parts:
            # Small whole numbers (shapes) may be written as varints; they are no weights.
            return memoryview(b"") if dtype in (1, 10, 11, 16) else None
        if len(parts) > 1:
            raise ValueError("a tensor is stored twice")
        return wire.joined(next(iter(parts.values())))

    def _outside(self, name: str, location: dict[str, str]) -> memoryview:
        file = location.get("location", "")
        if not file or Path(file).name != file:
            raise WeightsError(
                f"{self.path}: tensor {name} lies in {file!r:.60}, which is not a file beside it"
            )
        if file not in self.outside:
            beside = self.path.with_name(file)
            if beside.is_symlink() or not beside.is_file():
                raise UsageError(
                    f"the model's weights {beside} are missing; put them beside {self.path.name}"
                )
            self.outside[file] = memoryview(beside.read_bytes())
            self.allowance.left += len(self.outside[file])
        data = self.outside[file]
        start = int(location.get("offset", "0"))
        size = int(location.get("length", str(len(data) - start)))
        if start < 0 or size < 0 or start + size > len(data):
            raise WeightsError(f"{self.path}: tensor {name} reaches beyond {file}")
        self.allowance.take(name, size)
        return data[start : start + size]

    def resolve(self, nodes: list[_Node]) -> None:
        """Add what Constant, Identity and reshaping nodes make of constants, and whose they are."""
        for node in nodes:
            if node.op == "Constant" and node.value is not None and node.outputs:
                self.add(node.value, node.outputs[0])
            elif node.op in ("Identity", "Unsqueeze", "Reshape", "Squeeze") and node.inputs and node.outputs:
                source = self.constants.get(node.inputs[0])
                if source is not None:
                    self.constants[node.outputs[0]] = source
                    self.origins[node.outputs[0]] = self.origins.get(node.inputs[0], node.inputs[0])


def _layers(path: Path, nodes: list[_Node], reader: _Reader) -> Foreign:
    reader.resolve(nodes)
    consumers: dict[str, list[_Node]] = {}
    for node in nodes:
        for name in node.inputs:
            consumers.setdefault(name, []).append(node)
    tensors: dict[str, Tensor] = {}
    order: list[str] = []
    for node in nodes:
        if node.op not in LAYER_TYPES or len(node.inputs) < 2 or node.inputs[1] not in reader.constants:
            continue
        layer = _layer_name(reader.origins.get(node.inputs[1], node.inputs[1]), order)
        order.append(layer)
        for role, tensor in _layer(node, reader.constants, consumers).items():
            tensors[f"{layer}.{role}"] = tensor
    if not tensors:
        raise WeightsError(f"{path} has no convolution or linear layer with weights in it")
    return Foreign("onnx", tensors, layers=tuple(order))


def _layer_name(weight: str, taken: list[str]) -> str:
    for ending in WEIGHT_ENDINGS:
        if weight.endswith(ending) and weight != ending:
            weight = weight.removesuffix(ending)
            break
    return weight if weight not in taken else f"{weight}#{len(taken)}"


def _layer(node: _Node, constants: dict[str, Tensor], consumers: dict[str, list[_Node]]) -> dict[str, Tensor]:
    weight = constants[node.inputs[1]]
    if node.op == "MatMul" or (node.op == "Gemm" and not node.integers.get("transB", 0)):
        weight = weight.transpose(-1, -2) if weight.dim() >= 2 else weight
    found = {"weight": weight}
    if len(node.inputs) > 2 and node.inputs[2] in constants:
        found["bias"] = constants[node.inputs[2]].flatten()
    while (following := _only_consumer(node, consumers)) is not None:
        if not _absorb(following, constants, found):
            break
        node = following
    return found


def _only_consumer(node: _Node, consumers: dict[str, list[_Node]]) -> _Node | None:
    users = consumers.get(node.outputs[0], []) if node.outputs else []
    return users[0] if len(users) == 1 else None


def _absorb(node: _Node, constants: dict[str, Tensor], found: dict[str, Tensor]) -> bool:
    """Whether `node` is a normalisation, factor or summand of the layer; then it is in `found`."""
    values = [constants[name].flatten() for name in node.inputs if name in constants]
    if node.op == "BatchNormalization" and len(values) == 4 and "mean" not in found:
        found |= dict(zip(("scale", "shift", "mean", "variance"), values, strict=True))
        found["epsilon"] = torch.tensor(node.floats.get("epsilon", 1e-5))
        return True
    if len(values) != 1 or len(node.inputs) != 2:
        return False
    shape = found["weight"].shape
    # A linear layer's weights may be kept as 1 x 1 x O x I.
    if not shape or values[0].numel() != (shape[-2] if shape[:2] == (1, 1) and len(shape) == 4 else shape[0]):
        return False
    if node.op == "Mul" and "mean" in found:
        found["scale"] = found["scale"] * values[0]
        found["shift"] = found["shift"] * values[0]
        return True
    if node.op == "Add":
        role = "shift" if "mean" in found else "bias"
        found[role] = found[role] + values[0] if role in found else values[0]
        return True
    return False
