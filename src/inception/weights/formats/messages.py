"""Whose protocol buffers a file is, by its first fields: ONNX's, TensorFlow's, Caffe's or Core ML's."""

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

Message = Literal["onnx", "graph", "saved model", "caffe", "core ml", "solver state"]

_FIELDS = 64
"""Fields of a file that are looked at."""
_SHOWN_BYTES = 256
# Field numbers of onnx.proto's ModelProto, tensorflow/core/framework/graph.proto and caffe.proto's
# NetParameter; the kinds of Core ML's models have numbers from 200 on.
_OF_ONNX = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
_OF_GRAPH = {1, 2, 3, 4, 5}
_OF_CAFFE = {1, 2, 3, 4, 5, 6, 7, 8, 100}
_FIRST_OF_CORE_ML = 200
_NODE_STARTS = b"\x0a"
"""A node's first field is its name."""

_Fields = Mapping[int, list[int | bytes]]


def message_kind(path: Path) -> Message | None:
    """Which of the known kinds of message `path` is; None where it is none, or too damaged to tell."""
    fields: dict[int, list[int | bytes]] = {}
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            for number, value in itertools.islice(_read(stream, size), _FIELDS):
                fields.setdefault(number, []).append(value)
    except (OSError, ValueError):
        return None
    return _told(fields)


def _read(stream: BinaryIO, size: int) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and beginnings of the fields; ValueError for bytes that are no message."""
    while stream.tell() < size:
        key = _varint(stream)
        number, wire = key >> 3, key & 7
        if number == 0 or wire not in (0, 1, 2, 5):
            raise ValueError("no message")
        if wire == 0:
            yield number, _varint(stream)
            continue
        length = {1: 8, 5: 4}.get(wire) or (_varint(stream) if wire == 2 else 0)
        end = stream.tell() + length
        if end > size:
            raise ValueError("a field reaches beyond the file")
        yield number, stream.read(min(length, _SHOWN_BYTES))
        stream.seek(end)


def _varint(stream: BinaryIO) -> int:
    value = 0
    for place in range(10):
        byte = stream.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << 7 * place
        if byte[0] < 0x80:
            return value
    raise ValueError("a number does not end")


def _told(fields: _Fields) -> Message | None:
    numbers, first, second = set(fields), fields.get(1, []), fields.get(2, [])
    counted = all(isinstance(value, int) for value in first)
    if counted and first and max(numbers) >= _FIRST_OF_CORE_ML and numbers - {1, 2, 10}:
        return "core ml"
    if counted and numbers <= _OF_ONNX and _bytes_only(fields.get(7)):
        return "onnx"
    if counted and first and _bytes_only(second) and numbers <= {1, 2, 3, 4}:
        solver = any(isinstance(value, bytes) and b"caffemodel" in value for value in second)
        return "solver state" if solver or 3 in numbers else "saved model" if numbers == {1, 2} else None
    if numbers <= _OF_GRAPH and _bytes_only(first) and _starts(first, _NODE_STARTS):
        return "graph"
    layers = fields.get(100) or second
    named = len(first) <= 1 and (not first or _bytes_only(first))
    if numbers <= _OF_CAFFE and named and _bytes_only(layers) and _starts(layers, b"\x0a\x12\x22\x08\x18"):
        return "caffe"
    return None


def _bytes_only(values: list[int | bytes] | None) -> bool:
    return bool(values) and all(isinstance(value, bytes) for value in values or ())


def _starts(values: list[int | bytes], letters: bytes) -> bool:
    """Whether each begins with one of the letters: tags of fields that such a message has."""
    return all(
        isinstance(value, bytes) and value[:1] in [bytes([one]) for one in letters] for value in values
    )
