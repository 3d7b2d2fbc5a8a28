"""Decoding less must not change what is used: rows to the bit, whoever decodes; reductions within bounds."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image

from inception.data import photo as module
from inception.data.decode import decode_image
from inception.data.photo import Decoded, JpegPhoto, open_photo, read_jpeg_head, reduction
from inception.errors import ImageError

CHINA = Image.fromarray(load_sample_image("china.jpg"))


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def whole(data: bytes, **options) -> np.ndarray:
    return np.asarray(decode_image(data, **options))


@pytest.fixture(params=["simplejpeg", "pillow"])
def decoder(request, monkeypatch):
    if request.param == "pillow":
        monkeypatch.setattr(module, "FAST", None)
    else:
        pytest.importorskip("simplejpeg", reason="the extra loading is not installed")
    return request.param


def subsampled(size: tuple[int, int], subsampling: str) -> bytes:
    if subsampling in ("444", "422", "420"):
        return encode(CHINA.resize(size), quality=90, subsampling=":".join(subsampling))
    simplejpeg = pytest.importorskip("simplejpeg", reason="Pillow does not write this subsampling")
    return simplejpeg.encode_jpeg(np.array(CHINA.resize(size)), 90, colorsubsampling=subsampling)


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
@pytest.mark.parametrize("size", [(163, 121), (160, 128), (33, 97)])
def test_rows_down_to_the_cut_are_those_of_the_whole(decoder, subsampling, size):
    data = subsampled(size, subsampling)
    expected = whole(data)
    photo = open_photo(data, "photo.jpg")
    assert isinstance(photo, JpegPhoto)
    assert photo.size == size
    height = size[1]
    for bottom in {1, 7, 16, height // 2, height - 18, height - 16, height - 1, height}:
        rows = photo.rows(bottom)
        assert len(rows) <= bottom + module.EXTRA_ROWS or len(rows) == height
        assert np.array_equal(rows[:bottom], expected[:bottom]), bottom


@pytest.mark.parametrize(
    "options",
    [{"restart_marker_blocks": 3}, {"restart_marker_rows": 1}, {"optimize": True}, {"quality": 100}],
)
def test_rows_of_unusual_streams(decoder, options):
    data = encode(CHINA.resize((200, 150)), **options)
    photo = open_photo(data, "photo.jpg")
    assert isinstance(photo, JpegPhoto)
    assert np.array_equal(photo.rows(70)[:70], whole(data)[:70])


def test_grey_jpegs_are_read_as_rgb(decoder):
    data = encode(CHINA.resize((90, 70)).convert("L"))
    photo = open_photo(data, "grey.jpg")
    assert isinstance(photo, JpegPhoto)
    assert np.array_equal(photo.rows(30)[:30], whole(data)[:30])


@pytest.mark.parametrize("factor, reduce_to", [(2, 150), (4, 75), (8, 40), (1, 180)])
def test_a_reduction_is_that_of_decode_image(decoder, factor, reduce_to):
    data = encode(CHINA.resize((437, 323)), quality=90)
    photo = open_photo(data, "photo.jpg", lambda width, height: reduce_to)
    assert isinstance(photo, JpegPhoto) and photo.factor == factor
    assert photo.size == (-(-437 // factor), -(-323 // factor))
    assert np.array_equal(photo.rows(photo.size[1]), whole(data, reduce_to=reduce_to))


def test_the_reduction_keeps_the_side_that_is_wanted():
    for shortest in range(1, 400):
        for wanted in (1, 7, 50, 224):
            factor = reduction(shortest, 400, wanted)
            assert factor == 1 or shortest // factor >= wanted
            assert factor == 8 or shortest // (2 * factor) < wanted


def exif(turn: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = turn
    return block


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
UNUSUAL = {
    "progressive": encode(CHINA.resize((96, 64)), progressive=True),
    "turned": encode(CHINA.resize((96, 64)), exif=exif(6)),
    "turned by XMP": encode(CHINA.resize((96, 64)), xmp=XMP),
    "cmyk": encode(CHINA.resize((96, 64)).convert("CMYK")),
    "png": encode(CHINA.resize((96, 64)), "PNG"),
    "trailing bytes": encode(CHINA.resize((96, 64))) + b"more",
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_whatever_is_unusual_is_decoded_as_everywhere(decoder, name):
    photo = open_photo(UNUSUAL[name], name)
    assert isinstance(photo, Decoded)
    expected = whole(UNUSUAL[name])
    assert photo.size == (expected.shape[1], expected.shape[0])
    assert np.array_equal(photo.rows(10), expected)


def test_an_upright_camera_file_is_plain():
    assert read_jpeg_head(encode(CHINA.resize((96, 64)), exif=exif(1))).plain


def test_files_cut_short_raise_as_everywhere(decoder):
    data = encode(CHINA.resize((200, 150)))
    for end in range(0, len(data) - 1, max(len(data) // 40, 1)):
        for read in (lambda cut: whole(cut, name="x.jpg"), lambda cut: open_photo(cut, "x.jpg").rows(5)):
            with pytest.raises(ImageError, match=r"x\.jpg"):
                read(data[:end])


def test_damage_never_raises_anything_else(decoder):
    rng = np.random.default_rng(0)
    data = encode(CHINA.resize((120, 90)))
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(2, len(data) - 2, 3):
            damaged[place] = rng.integers(256)
        try:
            expected = whole(bytes(damaged))
        except ImageError:
            continue
        photo = open_photo(bytes(damaged), "x.jpg")
        if photo.size == (expected.shape[1], expected.shape[0]):
            assert np.array_equal(photo.rows(photo.size[1]), expected)


def test_a_picture_that_is_too_large_is_refused():
    data = bytearray(encode(CHINA.resize((64, 64))))
    place = read_jpeg_head(bytes(data)).height_at
    data[place : place + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(ImageError, match="limit"):
        open_photo(bytes(data), "bomb.jpg").rows(1)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_broken_files_are_judged_alike_whatever_rows_are_wanted(data):
    """Also where the damage lies behind the rows that a view needs."""
    grid = np.arange(160 * 120 * 3, dtype=np.uint32).reshape(120, 160, 3)
    stream = io.BytesIO()
    Image.fromarray((grid * 7 % 251).astype(np.uint8)).save(stream, "JPEG", quality=85)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(620, len(content) - 1))] = data.draw(
            st.sampled_from([0, 0xC0, 0xD9, 0xFF])
        )
    whole = bytes(content)

    def judged(decode) -> bool:
        try:
            decode()
        except ImageError:
            return False
        return True

    assert judged(lambda: decode_image(whole)) == judged(lambda: open_photo(whole, "it").rows(30))
