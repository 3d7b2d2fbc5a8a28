"""Random numbers as functions of (seed, epoch, draw), computed for a whole batch at once.

A generator object for each image costs more than moving a small image does. Here they come from
Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), which
has no state: whatever thread or process asks, and wherever a run is resumed, a draw's numbers are the same.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Uniforms = NDArray[np.float64]
_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counters: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Philox4x32-10: four 32-bit words for each counter.

    Args:
        counters: uint64 4 x N, each value below 2^32.
        key: two numbers below 2^32.

    Returns:
        uint64 4 x N, each value below 2^32.
    """
    first, second, third, fourth = counters
    for turn in range(_ROUNDS):
        left, right = (
            np.uint64((start + turn * step) & 0xFFFFFFFF) for start, step in zip(key, _KEY_STEPS, strict=True)
        )
        low, high = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first, second = (high >> _HALF) ^ second ^ left, high & _WORD
        third, fourth = (low >> _HALF) ^ fourth ^ right, low & _WORD
    return np.stack((first, second, third, fourth))


def uniforms(seed: int, epoch: int, draws: Sequence[int] | NDArray[np.int64], count: int) -> Uniforms:
    """`count` numbers (a multiple of four) in 0 <= u < 1 for each of N draws: float64 N x count.

    Args:
        seed: any whole number; its lowest 64 bits count.
        epoch: 0 or more, below 2^32.
        draws: numbers of the draws, 0 or more.
        count: how many numbers a draw needs.
    """
    numbers = np.asarray(draws, dtype=np.int64).astype(np.uint64)
    counters = np.zeros((4, len(numbers), count // 4), dtype=np.uint64)
    counters[0], counters[1] = (numbers & _WORD)[:, None], (numbers >> _HALF)[:, None]
    counters[2], counters[3] = epoch, np.arange(count // 4)
    words = philox(counters.reshape(4, -1), (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    result: Uniforms = (
        words.reshape(4, len(numbers), -1).transpose(1, 2, 0).reshape(len(numbers), count) / 2.0**32
    )
    return result
