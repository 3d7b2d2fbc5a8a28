"""TensorFlow's files without TensorFlow: frozen graphs (`.pb`) and checkpoints of both versions.

Sources of the message layouts, below tensorflow/core/: framework/{graph,node_def,attr_value,tensor}.proto and
tensor_shape.proto, protobuf/tensor_bundle.proto, util/saved_tensor_slice.proto.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inception.errors import UsageError, WeightsError
from inception.weights.formats import sstable, wire
from inception.weights.formats.crc32c import crc32c, masked
from inception.weights.formats.foreign import (
    Allowance,
    Foreign,
    checked_shape,
    reading,
    tensor_from_bytes,
)

DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 14: "bfloat16", 19: "<f2"}
ITEM_BYTES = {1: 4, 2: 8, 3: 4, 9: 8, 14: 2, 19: 2}
AVERAGE = "/ExponentialMovingAverage"
# TensorProto's repeated fields of values, by number: (NumPy's kind, or None for varints).
VALUE_FIELDS = {5: "<f4", 6: "<f8", 7: None, 10: None, 13: None}
MAX_FILL = 1 << 20
"""Elements that may be written as one repeated value."""


def read_graph(path: Path) -> Foreign:
    """The `Const` nodes of a frozen graph, by node name, in TensorFlow's layout.

    Raises WeightsError when it is damaged or no graph.
    """
    return reading(path, "a frozen TensorFlow graph", lambda: _read_graph(path))


def _read_graph(path: Path) -> Foreign:
    data = memoryview(path.read_bytes())
    allowance = Allowance(path, len(data))
    tensors: dict[str, Tensor] = {}
    for number, node in wire.fields(data):
        if number != 1:
            continue
        name, op, value = _const(wire.as_bytes(node))
        if op != "Const" or value is None:
            continue
        tensor = _tensor_proto(path, name, value, allowance)
        if tensor is not None and tensor.dim() > 0 and tensor.is_floating_point():  # others are no weights
            tensors[name] = tensor
    if not tensors:
        raise WeightsError(f"{path} is not a frozen graph: it has no Const node")
    return Foreign("graph", tensors)


def _const(node: memoryview) -> tuple[str, str, memoryview | None]:
    name, op, value = "", "", None
    for number, content in wire.fields(node):
        if number == 1:
            name = wire.as_text(content)
        elif number == 2:
            op = wire.as_text(content)
        elif number == 5:
            attribute = dict(wire.fields(wire.as_bytes(content)))
            if 1 in attribute and 2 in attribute and wire.as_text(attribute[1]) == "value":
                value = dict(wire.fields(wire.as_bytes(attribute[2]))).get(8)
    return name, op, None if value is None else wire.as_bytes(value)


def _shape(path: Path, name: str, message: memoryview) -> tuple[int, ...]:
    sides: list[int] = []
    for number, value in wire.fields(message):
        if number == 2:
            dimension = dict(wire.fields(wire.as_bytes(value)))
            sides.append(wire.as_int(dimension.get(1, 0)))
    return checked_shape(path, name, sides)


def _tensor_proto(
    path: Path,
    name: str,
    message: memoryview,
    allowance: Allowance,
    shape: tuple[int, ...] | None = None,
    dtype: int = 0,
) -> Tensor | None:
    """A TensorProto as a tensor; None for kinds that hold no weights (text, resources).

    `shape` and `dtype` stand where they are told elsewhere and not in the message.
    """
    content = None
    parts: dict[int, list[wire.Value]] = {}
    for number, value in wire.fields(message):
        if number == 1:
            dtype = wire.as_int(value)
        elif number == 2 and shape is None:
            shape = _shape(path, name, wire.as_bytes(value))
        elif number == 4:
            content = wire.as_bytes(value)
        elif number in VALUE_FIELDS:
            parts.setdefault(number, []).append(value)
    if dtype not in DTYPES:
        return None
    shape = shape or ()
    allowance.take(name, math.prod(shape) * ITEM_BYTES[dtype])
    if content is not None and len(content):
        return tensor_from_bytes(path, name, content, DTYPES[dtype], shape)
    return _filled(path, name, _values(parts, dtype), shape)


def _values(parts: dict[int, list[wire.Value]], dtype: int) -> np.ndarray:
    """The repeated value field that is there, as an array."""
    for number, pieces in parts.items():
        kind = VALUE_FIELDS[number]
        if kind is not None:
            return wire.floats([wire.as_bytes(piece) for piece in pieces], kind)
        numbers = np.array([n for piece in pieces for n in wire.integers(piece)], dtype=np.int64)
        if number != 13:
            return numbers
        halves = numbers.astype(np.uint16)  # half_val: the bits of float16 or bfloat16
        if dtype == 19:
            return halves.view(np.float16)
        return (halves.astype(np.uint32) << 16).view(np.float32)
    return np.zeros(0, np.float32)


def _filled(path: Path, name: str, values: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """`values` in `shape`; as in TensorFlow the last one stands for all that are not written."""
    count = math.prod(shape)
    if len(values) > count or (len(values) < count and count > MAX_FILL):
        raise WeightsError(f"{path}: tensor {name} has {len(values)} values for the shape {shape}")
    array = np.empty(count, values.dtype)
    array[: len(values)] = values
    array[len(values) :] = values[-1] if len(values) else 0
    return torch.from_numpy(array.reshape(shape))


def checkpoint_prefix(path: Path) -> Path | None:
    """The prefix of the version-2 checkpoint to which `path` (index, data file or the prefix) belongs."""
    name = path.name
    if name.endswith(".index"):
        prefix = path.with_name(name.removesuffix(".index"))
    elif ".data-" in name:
        prefix = path.with_name(name[: name.rindex(".data-")])
    else:
        prefix = path
    return prefix if prefix.with_name(f"{prefix.name}.index").is_file() else None


def read_checkpoint(path: Path) -> Foreign:
    """The variables of a checkpoint, in TensorFlow's layout; averaged ones in place of the raw ones.

    `path` is a version-2 checkpoint's index, data file or prefix, or a version-1 checkpoint. Raises
    WeightsError when it is damaged or does not match its checksums.
    """
    prefix = checkpoint_prefix(path)

    def read() -> Foreign:
        tensors = dict(_read_version2(prefix) if prefix is not None else _read_version1(path))
        if not tensors:
            raise WeightsError(f"{path} holds no variables")
        return _averaged(tensors)

    return reading(path, "a TensorFlow checkpoint", read)


def _averaged(tensors: dict[str, Tensor]) -> Foreign:
    averages = {name: value for name, value in tensors.items() if name.endswith(AVERAGE)}
    for name, value in averages.items():
        del tensors[name]
        tensors[name.removesuffix(AVERAGE)] = value
    notes = ["checksums verified"]
    if averages:
        notes.append(f"moving averages of {len(averages)} variables taken in place of their last values")
    return Foreign("checkpoint", tensors, notes=tuple(notes))


def _read_version2(prefix: Path) -> Iterator[tuple[str, Tensor]]:
    index = memoryview(prefix.with_name(f"{prefix.name}.index").read_bytes())
    shards: dict[int, memoryview] = {}
    shard_count = 0
    allowances: dict[int, Allowance] = {}
    for key, value in sstable.entries(index):
        entry = list(wire.fields(value))
        if not key:
            header = dict(entry)
            shard_count = wire.as_int(header.get(1, 0))
            if header.get(2, 0) != 0:
                raise WeightsError(f"{prefix} was written on a big-endian machine; that is not read")
            continue
        name = key.decode("utf-8")
        fields = dict(entry)
        dtype = wire.as_int(fields.get(1, 0))
        if dtype not in DTYPES:
            continue
        if 7 in fields:
            raise WeightsError(f"{prefix}: variable {name} is stored in slices, which are not read")
        shard = wire.as_int(fields.get(3, 0))
        if not 0 <= shard < shard_count:
            raise WeightsError(f"{prefix}: variable {name} lies in data file {shard} of {shard_count}")
        if shard not in shards:
            shards[shard] = _shard(prefix, shard, shard_count)
            allowances[shard] = Allowance(prefix, len(shards[shard]))
        shape = _shape(prefix, name, wire.as_bytes(fields[2])) if 2 in fields else ()
        start, size = wire.as_int(fields.get(4, 0)), wire.as_int(fields.get(5, 0))
        allowances[shard].take(name, size)
        if start < 0 or start + size > len(shards[shard]):
            raise WeightsError(f"{prefix}: variable {name} reaches beyond its data file")
        content = shards[shard][start : start + size]
        _verify(prefix, name, content, fields)
        yield name, tensor_from_bytes(prefix, name, content, DTYPES[dtype], shape)


def _verify(prefix: Path, name: str, content: memoryview, fields: dict[int, wire.Value]) -> None:
    stored = fields.get(6)
    if stored is not None and masked(crc32c(content)) != int.from_bytes(wire.as_bytes(stored), "little"):
        raise WeightsError(f"{prefix}: variable {name} does not match its checksum; fetch the file again")


def _shard(prefix: Path, number: int, count: int) -> memoryview:
    path = prefix.with_name(f"{prefix.name}.data-{number:05d}-of-{count:05d}")
    if not path.is_file():
        raise UsageError(f"the checkpoint's data file {path} is missing; put it beside its .index file")
    return memoryview(path.read_bytes())


def _read_version1(path: Path) -> Iterator[tuple[str, Tensor]]:
    data = memoryview(path.read_bytes())
    allowance = Allowance(path, len(data), times=4)  # blocks may be compressed
    declared: dict[str, tuple[tuple[int, ...], int]] = {}
    for _, value in sstable.entries(data):
        for number, message in wire.fields(value):
            if number == 1:
                declared |= _declared(path, wire.as_bytes(message))
            elif number == 2:
                saved = dict(wire.fields(wire.as_bytes(message)))
                name = wire.as_text(saved[1])
                if 2 in saved and _is_part(wire.as_bytes(saved[2])):
                    raise WeightsError(f"{path}: variable {name} is stored in slices, which are not read")
                proto = wire.as_bytes(saved[3])
                tensor = _tensor_proto(path, name, proto, allowance, *declared.get(name, ()))
                if tensor is not None:
                    yield name, tensor


def _declared(path: Path, meta: memoryview) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape and kind of every variable of a version-1 checkpoint."""
    found = {}
    for number, message in wire.fields(meta):
        if number == 1:
            tensor = dict(wire.fields(wire.as_bytes(message)))
            name = wire.as_text(tensor[1])
            shape = _shape(path, name, wire.as_bytes(tensor[2])) if 2 in tensor else ()
            found[name] = (shape, wire.as_int(tensor.get(3, 0)))
    return found


def _is_part(extents: memoryview) -> bool:
    """Whether a TensorSliceProto names a part (a full extent has neither start nor length)."""
    return any(number == 1 and len(wire.as_bytes(extent)) for number, extent in wire.fields(extents))
