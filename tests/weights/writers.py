"""Other tools' file formats, written from their published descriptions; shares no code with the readers."""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

Arrays = Mapping[str, np.ndarray]


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def text(field: int, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def fixed32(field: int, value: int) -> bytes:
    return varint(field << 3 | 5) + struct.pack("<I", value)


# TensorFlow: framework/tensor_shape.proto, tensor.proto, node_def.proto, graph.proto


def tf_shape(shape: tuple[int, ...]) -> bytes:
    return b"".join(text(2, number(1, side)) for side in shape)


def tf_tensor(array: np.ndarray, form: str = "content") -> bytes:
    """A TensorProto with its numbers as `content` (bytes), `floats` (float_val) or `halves` (half_val)."""
    dtype = {"float32": 1, "float64": 2, "int64": 9, "float16": 19}[array.dtype.name]
    head = number(1, dtype) + text(2, tf_shape(array.shape))
    if form == "content":
        return head + text(4, array.tobytes())
    if form == "floats":
        return head + text(5, array.astype("<f4").tobytes())
    return head + text(13, b"".join(varint(int(bits)) for bits in array.view(np.uint16).ravel()))


def const_node(name: str, tensor: bytes) -> bytes:
    value = text(1, "value") + text(2, text(8, tensor))
    dtype = text(1, "dtype") + text(2, number(6, 1))
    return text(1, text(1, name) + text(2, "Const") + text(5, dtype) + text(5, value))


def write_graph(path: Path, arrays: Arrays, form: str = "content") -> Path:
    other = text(1, text(1, "relu") + text(2, "Relu") + text(3, "x"))
    path.write_bytes(b"".join(const_node(name, tf_tensor(a, form)) for name, a in arrays.items()) + other)
    return path


# LevelDB's tables, and TensorFlow's two checkpoint versions in them


def _step(register: int) -> int:
    for _ in range(8):
        register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register


_STEPS = [_step(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    """CRC-32C byte by byte, as its definition says."""
    register = 0xFFFFFFFF
    for byte in data:
        register = register >> 8 ^ _STEPS[(register ^ byte) & 255]
    return register ^ 0xFFFFFFFF


def masked(checksum: int) -> int:
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def snappy(data: bytes) -> bytes:
    """Literals only, but for one copy where the data repeats."""
    out = bytearray(varint(len(data)))
    at = 0
    while at < len(data):
        if at >= 8 and data[at : at + 8] == data[at - 8 : at] and len(data) - at >= 8:
            out += bytes([(8 - 1) << 2 | 2]) + struct.pack("<H", 8)
            at += 8
            continue
        piece = data[at : at + 60]
        out += bytes([(len(piece) - 1) << 2]) + piece
        at += len(piece)
    return bytes(out)


def table(entries: list[tuple[bytes, bytes]], per_block: int = 4, compress: bool = False) -> bytes:
    out = bytearray()

    def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
        body, last = bytearray(), b""
        for key, value in pairs:
            shared = 0
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
            body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            last = key
        return bytes(body) + struct.pack("<II", 0, 1)

    def put(content: bytes) -> bytes:
        handle = varint(len(out))
        kind = b"\1" if compress else b"\0"
        content = snappy(content) if compress else content
        out.extend(content + kind + struct.pack("<I", masked(crc32c(content + kind))))
        return handle + varint(len(content))

    index = []
    for start in range(0, len(entries), per_block):
        part = entries[start : start + per_block]
        index.append((part[-1][0], put(block(part))))
    meta = put(block([]))
    root = put(block(index))
    footer = meta + root
    return bytes(out) + footer + bytes(40 - len(footer)) + struct.pack("<Q", 0xDB4775248B80FB57)


def write_checkpoint(prefix: Path, arrays: Arrays, *, checksum: bool = True, compress: bool = False) -> Path:
    """A version-2 checkpoint of one data file; returns its index."""
    data, entries = bytearray(), [(b"", number(1, 1) + text(3, number(1, 1)))]
    for name in sorted(arrays):
        array = arrays[name]
        raw = array.tobytes()
        dtype = {"float32": 1, "int64": 9}[array.dtype.name]
        entry = number(1, dtype) + text(2, tf_shape(array.shape))
        entry += number(4, len(data)) + number(5, len(raw))
        if checksum:
            entry += fixed32(6, masked(crc32c(raw)))
        entries.append((name.encode(), entry))
        data += raw
    index = prefix.with_name(f"{prefix.name}.index")
    index.write_bytes(table(entries, compress=compress))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    return index


def write_old_checkpoint(path: Path, arrays: Arrays, *, compress: bool = False) -> Path:
    """A version-1 checkpoint: every variable as one slice with full extents, numbers in `float_val`."""
    meta, entries = b"", []
    for name in sorted(arrays):
        array = arrays[name]
        full = text(4, b"".join(text(1, b"") for _ in array.shape))
        meta += text(1, text(1, name) + text(2, tf_shape(array.shape)) + number(3, 1) + full)
        tensor = text(5, array.astype("<f4").tobytes())  # TensorFlow leaves kind and shape to the header
        saved = text(1, name) + text(2, b"".join(text(1, b"") for _ in array.shape)) + text(3, tensor)
        entries.append((b"\0" + name.encode(), text(2, saved)))
    path.write_bytes(table([(b"", text(1, meta)), *entries], per_block=2, compress=compress))
    return path


# Caffe: src/caffe/proto/caffe.proto


def caffe_blob(array: np.ndarray, legacy: bool) -> bytes:
    data = text(5, array.astype("<f4").tobytes())
    if not legacy:
        return text(7, text(1, b"".join(map(varint, array.shape)))) + data
    sides = (1, 1, 1, 1, *array.shape)[-4:]
    return b"".join(number(field, side) for field, side in enumerate(sides, start=1)) + data


Layers = list[tuple[str, str, list[np.ndarray]]]
"""(name, type, blobs)"""


def write_caffe(path: Path, layers: Layers, *, legacy: bool = False) -> Path:
    kinds = {"Convolution": 4, "InnerProduct": 14, "ReLU": 18}
    out = bytearray(text(1, "net"))
    for name, kind, blobs in [*layers, ("relu", "ReLU", [])]:
        if legacy:
            body = text(4, name) + number(5, kinds[kind])
            body += b"".join(text(6, caffe_blob(blob, legacy)) for blob in blobs)
            out += text(2, body)
        else:
            body = text(1, name) + text(2, kind)
            body += b"".join(text(7, caffe_blob(blob, legacy)) for blob in blobs)
            out += text(100, body)
    path.write_bytes(out)
    return path
