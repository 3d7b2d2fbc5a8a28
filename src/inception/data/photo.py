"""A photograph for a training view: its size at once, its rows when the cut is known.

Three things make this faster than `decode_image`, and none changes a pixel of what is used, except the second
where `training_reduction` allows it:

1. A JPEG is decoded from its top down to the cut's last row. Its header's height is lowered, which the
   decoder takes for the end of the picture.
2. A photograph much larger than the network's view is decoded at 1/2, 1/4 or 1/8 of its size.
3. simplejpeg, where it is installed, decodes into an array without Pillow's detour. Both use libjpeg-turbo
   and agree to the bit.

Whatever is unusual (progressive, turned by EXIF, cut short, any other format) goes to `decode_image`, so that
it is judged by the same rules everywhere.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inception.data.decode import DEFAULT_MAX_PIXELS, decode_image

try:
    import simplejpeg
except ImportError:  # the extra `loading`; Pillow gives the same pixels
    FAST: Any = None
else:
    FAST = simplejpeg.decode_jpeg

Rows = NDArray[np.uint8]
Reduce = Callable[[int, int], int | None]
"""(width, height) -> the shortest side that must be left, or None: see `decode_image`'s `reduce_to`."""

EXTRA_ROWS = 16
"""Rows decoded beyond the last that is used: chroma is interpolated over the end of a block row."""
_START, _END = b"\xff\xd8", b"\xff\xd9"
_SEQUENTIAL, _FRAMES = (0xC0, 0xC1), frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _APP1 = 0xDA, 0xE1
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_EXIF_TURN = 0x0112


class Photo(Protocol):
    """An image in mode RGB, upright, of which rows can be had."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""

    def rows(self, bottom: int) -> Rows:
        """uint8 H x W x 3 with at least the first `bottom` rows. Raises ImageError."""


class Decoded(NamedTuple):
    """A photo that is decoded already: `pixels` uint8 H x W x 3."""

    pixels: Rows

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def rows(self, bottom: int) -> Rows:
        """All of it."""
        return self.pixels


class JpegHead(NamedTuple):
    """What a JPEG file's header says.

    Attributes:
        width, height: pixels as stored.
        height_at: where the height stands in the file.
        plain: one sequential 8-bit scan of one or three channels, upright, complete: may be decoded in part.
    """

    width: int
    height: int
    height_at: int
    plain: bool


class JpegPhoto(NamedTuple):
    """A plain JPEG file, decoded at 1/`factor` of its size (1, 2, 4 or 8)."""

    data: bytes
    head: JpegHead
    factor: int
    name: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, after the reduction."""
        return -(-self.head.width // self.factor), -(-self.head.height // self.factor)

    def rows(self, bottom: int) -> Rows:
        """uint8 H x W x 3 with at least the first `bottom` rows, as decoding all of it gives them."""
        data = self.data
        if self.factor == 1 and bottom + EXTRA_ROWS < self.head.height:
            start, end = self.head.height_at, self.head.height_at + 2
            data = data[:start] + (bottom + EXTRA_ROWS).to_bytes(2, "big") + data[end:]
        if FAST is not None:
            width, height = self.size if self.factor > 1 else (0, 0)
            try:
                rows: Rows = FAST(data, min_width=width, min_height=height, strict=False)
            except ValueError:  # Pillow judges whether it is damaged
                pass
            else:
                return rows
        if self.factor == 1:
            return np.asarray(decode_image(data, name=self.name))
        reduce_to = min(self.head.width, self.head.height) // self.factor
        return np.asarray(decode_image(data, reduce_to=reduce_to, name=self.name))


def open_photo(data: bytes, name: str, reduce: Reduce | None = None, bits: int = 0) -> Photo:
    """An image file of any format that `decode_image` reads. Raises ImageError, if not now then by `rows`."""
    head = read_jpeg_head(data)
    reduce_to = reduce(head.width, head.height) if reduce is not None and head is not None else None
    if head is None or not head.plain:
        return Decoded(np.asarray(decode_image(data, reduce_to=reduce_to, bits=bits, name=name)))
    return JpegPhoto(data, head, reduction(head.width, head.height, reduce_to), name)


def reduction(width: int, height: int, reduce_to: int | None) -> int:
    """1, 2, 4 or 8: by how much `decode_image` reduces a JPEG whose shortest side must keep `reduce_to`."""
    if reduce_to is None:
        return 1
    return next((factor for factor in (8, 4, 2) if min(width, height) // factor >= reduce_to), 1)


def read_jpeg_head(data: bytes) -> JpegHead | None:
    """The header of a JPEG file; None when it is none, or damaged, or too large a picture to be decoded."""
    if not data.startswith(_START):
        return None
    frame: JpegHead | None = None
    channels, place, upright = 0, 2, True
    try:
        while True:
            if data[place] != 0xFF:
                return None
            marker = data[place + 1]
            if marker == 0xFF:
                place += 1
                continue
            length = int.from_bytes(data[place + 2 : place + 4], "big")
            body = place + 4
            if marker in _FRAMES:
                if frame is not None:
                    return None
                channels = data[body + 5]
                plain = marker in _SEQUENTIAL and data[body] == 8 and channels in (1, 3)
                height, width = (int.from_bytes(data[at : at + 2], "big") for at in (body + 1, body + 3))
                frame = JpegHead(width, height, body + 1, plain)
            elif marker == _APP1:
                upright = upright and _is_upright(data[body : place + 2 + length])
            elif marker == _SCAN:
                break
            place += 2 + length
        if frame is None or 0 in frame[:2] or frame.width * frame.height > DEFAULT_MAX_PIXELS:
            return None
        one_scan = data[body] == channels
    except IndexError:
        return None
    plain = frame.plain and one_scan and upright and data.endswith(_END)
    # A marker among the pixels stops the decoder, perhaps behind the rows that a view needs.
    plain = plain and _MARKER.search(data, body, len(data) - len(_END)) is None
    return frame._replace(plain=plain)


def _is_upright(segment: bytes) -> bool:
    if not segment.startswith(b"Exif\0\0"):
        return b"rientation" not in segment  # XMP
    exif = Image.Exif()
    try:
        exif.load(segment)
        return bool(exif.get(_EXIF_TURN, 1) == 1)
    except Exception:  # `decode_image` decides what a damaged block means
        return False
