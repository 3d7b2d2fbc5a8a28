"""What it costs to decode an image, told from its header: pixels, as often as a JPEG's scans go over them."""

from inception.data.decode import read_header
from inception.errors import ImageError

_START_OF_SCAN = b"\xff\xda"
_ALONE = {0x01, 0xFF, *range(0xD0, 0xD9)}


def scanned_pixels(data: bytes) -> tuple[int, int]:
    """Width x height x scans of an image file, and the scans; 0 of what is no image.

    More scans than the usual one of a JPEG need hardly any bytes, and go over all its pixels once more.
    """
    try:
        header = read_header(data)
    except ImageError:
        return 0, 1
    scans = scans_of(data) if header.format == "JPEG" else 1
    return header.width * header.height * scans, scans


def scans_of(data: bytes) -> int:
    """How many scans a JPEG file has; those of thumbnails in its metadata are not counted."""
    return max(1, data.count(_START_OF_SCAN, _first_scan(data)))


def _first_scan(data: bytes) -> int:
    """Where the first scan begins; 2 where the segments before it are damaged."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _START_OF_SCAN[1]:
            return at
        if marker in _ALONE:
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 2
