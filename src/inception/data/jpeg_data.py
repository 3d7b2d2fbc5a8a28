"""JPEG files whose pixels are not all there: decoders fill the rest with grey and say nothing."""

import numpy as np
from PIL import Image

try:
    import simplejpeg
except ImportError:  # the extra `loading`
    simplejpeg = None

MISSING = "data is missing in the JPEG file, and the rest of the picture is filled up with grey"
_LOST = ("premature end", "bad Huffman code")
_SMALLEST = 8
_GREY = 128


def lacks_data(data: bytes, picture: Image.Image) -> bool:
    """Whether a JPEG that was decoded ended before its picture did, or held data that are none.

    simplejpeg passes on what libjpeg warns of. Without it, a last row of blocks that is exactly the grey with
    which libjpeg fills up is taken for that.

    Args:
        data: the file.
        picture: what Pillow made of it.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    if simplejpeg is None:
        return _filled_up(picture)
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, min_factor=_SMALLEST, strict=True)
    except ValueError as error:
        return any(words in str(error) for words in _LOST)
    return False


def _filled_up(picture: Image.Image) -> bool:
    last = np.asarray(picture.convert("RGB"))[-_SMALLEST:]
    return picture.height > 2 * _SMALLEST and bool((last == _GREY).all())
