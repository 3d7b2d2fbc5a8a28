"""Memory that a training step gives back and takes again is kept in the process meanwhile.

glibc maps every large block anew from the system and unmaps it when it is freed, so that each step waits for
the same pages to be cleared again: a tenth of a step of GoogLeNet on a CPU.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# From malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}
# Where glibc's own thresholds end up in a process that has freed large blocks; once told it leaves them.
_USUAL = {_MMAP_MAX: 65_536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let freed memory stay in the process during the block; at its end it goes back to the system.

    Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    _set(library, _KEPT)
    try:
        yield
    finally:
        _set(library, _USUAL)
        library.malloc_trim(0)


def _set(library: ctypes.CDLL, options: dict[int, int]) -> None:
    for name, value in options.items():
        library.mallopt(name, value)
