"""Fixtures of the native engine's tests."""

import numpy as np
import pytest

from inception.runtime.native import runner as module

CANARY = 4096


@pytest.fixture(autouse=True)
def canaries(monkeypatch):
    """Bytes behind every piece of the engine's memory, which nothing may change."""
    behind = []

    def aligned_zeros(size):
        room = np.zeros(size + 64 + CANARY, dtype=np.uint8)
        start = -room.ctypes.data % 64
        room[start + size :] = 0xA5
        behind.append(room[start + size :])
        return room[start : start + size]

    monkeypatch.setattr(module, "aligned_zeros", aligned_zeros)
    yield behind
    assert all((canary == 0xA5).all() for canary in behind)
