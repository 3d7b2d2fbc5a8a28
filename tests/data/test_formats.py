"""Formats beside the common ones, and PNG files with long text or profiles."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from inception.data.decode import EXTENSIONS, decode_image, read_header, sniff_format
from inception.data.formats import HAS_HEIC, left_out_reason
from inception.data.png_text import without_large_text
from inception.errors import ImageError

PICTURE = Image.fromarray(np.arange(48 * 32 * 3, dtype=np.uint16).astype(np.uint8).reshape(32, 48, 3))
LONG = b"words " * 400_000


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(made: bytes, *, last: bool) -> bytes:
    """The picture as PNG, with a chunk behind its header or behind its pixels."""
    data = encode(PICTURE, "PNG")
    place = len(data) - 12 if last else 33
    return data[:place] + made + data[place:]


PACKED = zlib.compress(LONG)
CHUNKS = {
    "tEXt": chunk(b"tEXt", b"Comment\0" + LONG),
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + PACKED),
    "iTXt": chunk(b"iTXt", b"Comment\0\1\0en\0\0" + PACKED),
    "plain iTXt": chunk(b"iTXt", b"Comment\0\0\0en\0\0" + LONG),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + PACKED),
    "eXIf": chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0" + LONG),
    "70 long texts": chunk(b"tEXt", b"Comment\0" + LONG) * 30,
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", CHUNKS)
def test_png_with_long_text_is_read(name, last):
    data = with_chunk(CHUNKS[name], last=last)
    assert np.array_equal(decode_image(data), PICTURE)
    assert read_header(data) == ("PNG", "RGB", 48, 32)


def test_a_bomb_of_text_is_not_unpacked():
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**24)) for _ in range(16)) + packer.flush()
    assert np.array_equal(
        decode_image(with_chunk(chunk(b"zTXt", b"Comment\0\0" + packed), last=False)), PICTURE
    )


def test_only_long_text_is_taken_out():
    short = with_chunk(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"words")), last=False)
    assert without_large_text(short) is None
    assert without_large_text(b"no PNG") is None
    data = with_chunk(CHUNKS["zTXt"], last=False)
    assert without_large_text(data) == encode(PICTURE, "PNG")
    with pytest.raises(ImageError):
        decode_image(data[:-200])


@pytest.mark.parametrize(
    ("mode", "ending"), [("RGB", ".ppm"), ("L", ".pgm"), ("1", ".pbm"), ("RGB", ".pnm"), ("RGB", ".PPM")]
)
def test_portable_pixmaps(mode, ending):
    picture = PICTURE.convert(mode)
    data = encode(picture, "PPM")
    assert sniff_format(data) == EXTENSIONS[ending.lower()] == "PPM"
    assert np.array_equal(decode_image(data), picture.convert("RGB"))


def test_portable_pixmap_as_text_and_with_16_bits():
    assert np.asarray(decode_image(b"P2\n# made\n2 1\n255\n0 200\n")).tolist() == [[[0] * 3, [200] * 3]]
    wide = b"P5 2 1 65535\n" + struct.pack(">2H", 0, 65535)
    assert np.asarray(decode_image(wide)).tolist() == [[[0] * 3, [255] * 3]]
    with pytest.raises(ImageError, match="PPM file cut short"):
        decode_image(b"P5 20 20 255\nabc")


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif():
    data = encode(PICTURE.resize((96, 64)), "AVIF", quality=95)
    assert sniff_format(data) == EXTENSIONS[".avif"] == "AVIF"
    assert decode_image(data).size == (96, 64)
    with pytest.raises(ImageError):
        decode_image(data[:-50])


@pytest.mark.skipif(not HAS_HEIC, reason="needs the extra heic")
def test_heic():
    import pillow_heif

    stream = io.BytesIO()
    pillow_heif.from_pillow(PICTURE.resize((96, 64))).save(stream, quality=90)
    data = stream.getvalue()
    assert sniff_format(data) == EXTENSIONS[".heic"] == "HEIC"
    assert decode_image(data).size == (96, 64)
    with pytest.raises(ImageError):
        decode_image(data[:-50])


@pytest.mark.skipif(HAS_HEIC, reason="needs an environment without the extra heic")
def test_heic_without_the_extra():
    assert ".heic" not in EXTENSIONS
    assert str(left_out_reason("IMG_1.HEIC")).startswith("HEIC, not read: ")
