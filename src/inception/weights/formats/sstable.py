"""LevelDB's table file, the container of TensorFlow's checkpoints: keys and values in checked blocks.

Source: https://github.com/google/leveldb/blob/main/doc/table_format.md and Snappy's format_description.txt.
"""

import struct
from collections.abc import Iterator

from inception.weights.formats.crc32c import crc32c, masked
from inception.weights.formats.wire import read_varint

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
FOOTER_BYTES, TRAILER_BYTES = 48, 5
STORED, SNAPPY = 0, 1
MAX_EXPANSION = 32
"""A Snappy block of weights shrinks to little less than itself; more than this is refused."""


def is_table(tail: bytes) -> bool:
    """Whether a file that ends in `tail` is such a table."""
    return tail.endswith(MAGIC)


def entries(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Every key and value, in the order of the file.

    Blocks must lie one behind the other, so that no block is read twice. Raises ValueError for bytes that
    are no table or do not match their checksum.
    """
    if len(data) < FOOTER_BYTES or not is_table(bytes(data[-8:])):
        raise ValueError("the table's end mark is missing")
    footer = data[-FOOTER_BYTES:]
    _, at = _handle(footer, 0)
    index, _ = _handle(footer, at)
    end = 0
    for _, handle in _block_entries(_block(data, *index)):
        (start, size), _ = _handle(handle, 0)
        if start < end:
            raise ValueError("blocks overlap")
        end = start + size + TRAILER_BYTES
        yield from _block_entries(_block(data, start, size))


def _handle(data: memoryview, at: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _block(data: memoryview, start: int, size: int) -> memoryview:
    if start + size + TRAILER_BYTES > len(data):
        raise ValueError("a block reaches beyond the file")
    content, kind = data[start : start + size], data[start + size]
    (stored,) = struct.unpack_from("<I", data, start + size + 1)
    if masked(crc32c(data[start : start + size + 1])) != stored:
        raise ValueError("a block does not match its checksum")
    if kind == SNAPPY:
        return memoryview(unsnappy(content))
    if kind != STORED:
        raise ValueError(f"a block is compressed in the unknown way {kind}")
    return content


def _block_entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    if len(block) < 4:
        raise ValueError("a block is too short")
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError("a block has more restart points than bytes")
    at, key = 0, b""
    while at < end:
        shared, at = read_varint(block, at)
        unshared, at = read_varint(block, at)
        size, at = read_varint(block, at)
        if shared > len(key) or at + unshared + size > end:
            raise ValueError("an entry reaches beyond its block")
        key = key[:shared] + bytes(block[at : at + unshared])
        at += unshared
        yield key, block[at : at + size]
        at += size


def unsnappy(data: memoryview) -> bytes:
    """Decompress one Snappy block; ValueError when it is damaged or expands absurdly."""
    length, at = read_varint(data, 0)
    if length > MAX_EXPANSION * len(data) + 64:
        raise ValueError("a compressed block claims an absurd length")
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            size, at = _literal_size(data, tag >> 2, at)
            out += data[at : at + size]
            at += size
        else:
            size, distance, at = _copy(data, tag, at)
            if not 0 < distance <= len(out):
                raise ValueError("a compressed block refers to before its start")
            pattern = bytes(out[-distance:][:size])
            out += (pattern * (size // len(pattern) + 1))[:size]
        if len(out) > length or at > len(data):
            break
    if len(out) != length or at != len(data):
        raise ValueError("a compressed block has another length than it says")
    return bytes(out)


def _literal_size(data: memoryview, code: int, at: int) -> tuple[int, int]:
    if code < 60:
        return code + 1, at
    width = code - 59
    return int.from_bytes(data[at : at + width], "little") + 1, at + width


def _copy(data: memoryview, tag: int, at: int) -> tuple[int, int, int]:
    if tag & 3 == 1:
        return ((tag >> 2) & 7) + 4, (tag >> 5) << 8 | int.from_bytes(data[at : at + 1], "little"), at + 1
    width = 2 if tag & 3 == 2 else 4
    return (tag >> 2) + 1, int.from_bytes(data[at : at + width], "little"), at + width
