"""What decoding an image takes of memory, estimated from its header before its pixels are touched.

`max_pixels` bounds pixels, not bytes: a file of 1 MB may hold floats that take gigabytes. The bytes a pixel
were measured (peak resident memory of one decode of 36 million pixels), with a tenth added.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from inception.errors import ImageError

LIMIT_VARIABLE = "INCEPTION_DECODE_MIB"
DEFAULT_LIMIT_MIB = 1280
"""Enough for a JPEG of 134 million pixels, the default of `max_pixels`."""

_BYTES = {"JPEG": 9.0, "MPO": 9.0, "PNG": 9.0, "WEBP": 18.0, "BMP": 9.0, "GIF": 6.0, "PPM": 9.0, "TIFF": 9.0}
_BYTES |= {"AVIF": 12.0, "HEIF": 14.0}
_PROGRESSIVE, _ALPHA, _DEEP = 11.0, 15.0, 16.0
_LARGE_SHARE = 0.25
_TURN = threading.Lock()


def limit_bytes() -> int:
    """The most that one decode may take: `$INCEPTION_DECODE_MIB`, else 1,280 MiB."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    return (int(text) if text.isdigit() and int(text) > 0 else DEFAULT_LIMIT_MIB) * 2**20


def estimate(kind: str, mode: str, pixels: int, progressive: bool = False) -> int:
    """Bytes that decoding takes: of a file of Pillow's format `kind` and mode `mode`, with so many pixels."""
    each = _BYTES.get(kind, _DEEP)
    if progressive:
        each = max(each, _PROGRESSIVE)
    if mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        each = max(each, _ALPHA)
    if mode.startswith("I") or mode == "F":
        each = max(each, _DEEP)
    return int(each * pixels)


@contextmanager
def room_for(needed: int, name: str, what: str) -> Iterator[None]:
    """Refuse what needs more than the limit; let large decodes of several threads take turns.

    Raises:
        ImageError: saying how much `name`, which is `what`, needs.
    """
    limit = limit_bytes()
    if needed > limit:
        raise ImageError(
            "too_large",
            f"{name} is {what} and needs about {needed >> 20:,} MiB of memory to be decoded, over the limit "
            f"of {limit >> 20:,} MiB; make it smaller, or raise it: {LIMIT_VARIABLE}={(needed >> 20) + 1}.",
        )
    if needed < _LARGE_SHARE * limit:
        yield
        return
    with _TURN:
        yield
