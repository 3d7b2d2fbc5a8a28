"""CRC-32C (Castagnoli), the checksum of TensorFlow's checkpoints, over many lanes at once.

A checksum is linear over the field of two elements, so a long text is cut into equal lanes whose registers
advance together in numpy, and their results are joined afterwards.
"""

import numpy as np

POLYNOMIAL = 0x82F63B78
MASK_DELTA = 0xA282EAD8
LANES = 4096


def _make_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


TABLE = _make_table()
_TABLE_LIST = TABLE.tolist()


def _advance(register: int, data: bytes) -> int:
    for byte in data:
        register = _TABLE_LIST[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register


def _times(matrix: list[int], vector: int) -> int:
    result = 0
    for row in matrix:
        if vector & 1:
            result ^= row
        vector >>= 1
        if not vector:
            break
    return result


def _zeros_operator(length: int) -> list[int]:
    """The 32 x 32 matrix that moves a register over `length` zero bytes."""
    one_byte = [_advance(1 << bit, b"\0") for bit in range(32)]
    result = [1 << bit for bit in range(32)]
    power = one_byte
    while length:
        if length & 1:
            result = [_times(power, row) for row in result]
        power = [_times(power, row) for row in power]
        length >>= 1
    return result


def crc32c(data: bytes | memoryview) -> int:
    """The CRC-32C of `data`, in 0..2**32 - 1."""
    lane = len(data) // LANES
    if lane < 16:
        return _advance(0xFFFFFFFF, bytes(data)) ^ 0xFFFFFFFF
    columns = np.frombuffer(data, np.uint8, count=lane * LANES).reshape(LANES, lane).T
    registers = np.zeros(LANES, np.uint32)
    registers[0] = 0xFFFFFFFF
    for start in range(0, lane, 256):
        for column in np.ascontiguousarray(columns[start : start + 256]):
            registers = TABLE[(registers ^ column) & 0xFF] ^ (registers >> np.uint32(8))
    move = _zeros_operator(lane)
    register = 0
    for lane_register in registers.tolist():
        register = _times(move, register) ^ lane_register
    return _advance(register, bytes(data[lane * LANES :])) ^ 0xFFFFFFFF


def masked(checksum: int) -> int:
    """The form in which TensorFlow and LevelDB store a checksum."""
    return (((checksum >> 15) | (checksum << 17)) + MASK_DELTA) & 0xFFFFFFFF
