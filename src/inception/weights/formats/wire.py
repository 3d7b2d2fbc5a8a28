"""The wire format of protocol buffers, read field by field without any schema or generated code.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 1 << 22
"""Fields of one message; a real file has some thousand layers."""

Value = int | memoryview


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """A variable-length number at `at`, and the position behind it; ValueError when it does not end."""
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise ValueError("a number has more than ten bytes")


def fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """The (number, value) pairs of one message: numbers for varints, memory for everything else.

    Nothing is copied. Raises ValueError for bytes that are no message.
    """
    at = count = 0
    while at < len(data):
        count += 1
        if count > MAX_FIELDS:
            raise ValueError(f"a message has more than {MAX_FIELDS} fields")
        key, at = read_varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field has the number 0")
        if wire == VARINT:
            value, at = read_varint(data, at)
            yield number, value
            continue
        if wire == BYTES:
            length, at = read_varint(data, at)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"a field has the unknown wire type {wire}")
        if length > len(data) - at:
            raise ValueError("a field reaches beyond its message")
        yield number, data[at : at + length]
        at += length


def as_bytes(value: Value) -> memoryview:
    """The content of a length-delimited field; ValueError for a number."""
    if isinstance(value, int):
        raise ValueError("a number stands where bytes were expected")  # noqa: TRY004 - the file is wrong
    return value


def as_int(value: Value) -> int:
    """A varint as a signed 64-bit number; ValueError for anything else."""
    if not isinstance(value, int):
        raise ValueError("bytes stand where a number was expected")  # noqa: TRY004 - the file is wrong
    return value - (1 << 64) if value >= 1 << 63 else value


def as_text(value: Value) -> str:
    """A string field; ValueError when it is not UTF-8."""
    return bytes(as_bytes(value)).decode("utf-8")


def integers(value: Value) -> list[int]:
    """One element, or all elements, of a repeated integer field (unpacked or packed)."""
    if isinstance(value, int):
        return [as_int(value)]
    numbers, at = [], 0
    while at < len(value):
        number, at = read_varint(value, at)
        numbers.append(as_int(number))
    return numbers


def joined(parts: list[memoryview]) -> memoryview:
    """A repeated fixed-size field's pieces (one if packed, one an element if not) as one piece of memory."""
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def floats(parts: list[memoryview], kind: str) -> np.ndarray:
    """A repeated `float` ("<f4") or `double` ("<f8") field as an array that shares the file's memory."""
    return np.frombuffer(joined(parts), kind)
