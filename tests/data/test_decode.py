"""Decoding is checked against numpy's own view of the pixels, and against files made to break it."""

import io
import pickle
import struct
import threading
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from inception.data.decode import (
    ALLOWED_FORMATS,
    EXTENSIONS,
    decode_image,
    read_header,
    sniff_format,
    upright_rgb,
)
from inception.errors import ImageError

# What a viewer must do to show an image stored with each orientation, from the EXIF specification.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: lambda a: np.rot90(a, 1),
}


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photo(width: int = 120, height: int = 90) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [columns * 255 // width, rows * 255 // height, (rows + columns) * 255 // (width + height)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def failure(data: bytes, **options) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **options)
    return caught.value


@settings(max_examples=60, deadline=None)
@given(
    orientation=st.integers(1, 8),
    kind=st.sampled_from(["PNG", "WEBP", "TIFF"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_orientation_is_applied_once_in_every_lossless_format(orientation, kind, size, seed):
    stored = noise(*size, seed)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(stored), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    picture = decode_image(data)
    np.testing.assert_array_equal(np.asarray(picture), UPRIGHT[orientation](stored))
    assert picture.getexif().get(0x0112) is None


@pytest.mark.parametrize("shape", ["Landscape", "Portrait"])
def test_the_eight_orientations_of_one_photo_agree(shared, shape):
    with zipfile.ZipFile(shared / "data" / "bad-images.zip") as archive:
        pictures = [decode_image(archive.read(f"exif/{shape}_{number}.jpg")) for number in range(1, 9)]
    small = [np.asarray(picture.convert("L").resize((30, 30))).astype(float) for picture in pictures]
    assert len({picture.size for picture in pictures}) == 1
    # Each file has its own number drawn in it, so they agree but for a small patch.
    assert all(np.median(np.abs(one - small[0])) < 3 for one in small)


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_impossible_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode_image(encode(photo(), "PNG", exif=exif)).size == (120, 90)


def test_a_damaged_exif_block_does_not_cost_the_picture():
    data = encode(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decode_image(data).size == (120, 90)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "MPO"])
def test_every_allowed_format_gives_the_picture(kind):
    picture = decode_image(encode(photo(), kind))
    assert (picture.mode, picture.size, picture.info) == ("RGB", (120, 90), {})
    difference = np.abs(np.asarray(picture).astype(int) - np.asarray(photo()).astype(int))
    assert difference.mean() < 8


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "JPEG2000", "EPS", "DIB", "SGI", "ICNS"])
def test_every_other_format_is_refused(kind):
    error = failure(encode(photo(64, 64), kind), name="x.jpg")
    assert error.kind == "format"
    assert "x.jpg" in str(error)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    values = np.array([[0, 257, 32768, 65535, 128 * 257]], dtype=np.uint16)
    picture = decode_image(encode(Image.fromarray(values), kind))
    np.testing.assert_array_equal(np.asarray(picture)[0, :, 0], [0, 1, 128, 255, 128])
    assert (np.asarray(picture)[..., 0] == np.asarray(picture)[..., 2]).all()


def tiff(
    values: np.ndarray, *, bits: int, sample_format: int = 1, photometric: int = 1, order: str = "<"
) -> bytes:
    """A minimal uncompressed greyscale TIFF, written by hand."""
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    entries = [
        (256, 4, values.shape[1]),
        (257, 4, values.shape[0]),
        (258, 4, bits),
        (259, 4, 1),
        (262, 4, photometric),
        (273, 4, 8),
        (277, 4, 1),
        (278, 4, values.shape[0]),
        (279, 4, len(pixels)),
        (339, 4, sample_format),
    ]
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(pixels))
    table = struct.pack(f"{order}H", len(entries))
    for tag, kind, value in entries:
        table += struct.pack(f"{order}HHII", tag, kind, 1, value)
    return header + pixels + table + struct.pack(f"{order}I", 0)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_tiffs_of_both_byte_orders(order):
    values = np.array([[0, 1000, 65535], [257, 514, 40000]], dtype=np.uint16)
    picture = decode_image(tiff(values, bits=16, order=order))
    np.testing.assert_array_equal(np.asarray(picture)[..., 1], np.rint(values / 257).astype(np.uint8))


def test_white_is_zero_is_inverted_at_16_bits_as_at_8():
    values = np.array([[0, 65535, 257 * 100]], dtype=np.uint16)
    assert np.asarray(decode_image(tiff(values, bits=16, photometric=0)))[0, :, 0].tolist() == [255, 0, 155]
    eight = np.array([[0, 255, 100]], dtype=np.uint8)
    assert np.asarray(decode_image(tiff(eight, bits=8, photometric=0)))[0, :, 0].tolist() == [255, 0, 155]


def test_12_bit_values_in_a_16_bit_tiff_are_not_all_but_black():
    values = np.array([[0, 4095, 2048]], dtype=np.uint16)
    assert np.asarray(decode_image(tiff(values, bits=16)))[0, :, 0].tolist() == [0, 255, 128]
    assert np.asarray(decode_image(encode(Image.fromarray(values), "PNG")))[0, :, 0].tolist() == [0, 16, 8]
    eight = np.array([[0, 255, 100]], dtype=np.uint16)
    assert np.asarray(decode_image(tiff(eight, bits=16)))[0, :, 0].tolist() == [0, 255, 100]
    stated = encode(Image.fromarray(values), "TIFF", tiffinfo={281: 16383})
    assert np.asarray(decode_image(stated))[0, :, 0].tolist() == [0, 64, 32]


def test_12_bit_tiff_uses_its_own_range():
    # Two 12-bit values in three bytes: 0x000 and 0xFFF, then 0x800 and 0x400.
    packed = np.frombuffer(bytes([0x00, 0x0F, 0xFF, 0x80, 0x04, 0x00]), np.uint8).reshape(1, 6)
    data = tiff(packed, bits=12).replace(
        struct.pack("<HHII", 256, 4, 1, 6), struct.pack("<HHII", 256, 4, 1, 4)
    )
    assert np.asarray(decode_image(data))[0, :, 0].tolist() == [0, 255, 128, 64]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-10.0, 0.0, 10.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([0.0, float("inf"), 1.0], [0, 0, 255]),
        ([-3.0, -3.0, -3.0], [0, 0, 0]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
    ],
)
def test_floating_point_tiffs_find_their_range(values, expected):
    data = tiff(np.array([values], dtype=np.float32), bits=32, sample_format=3)
    got = np.asarray(decode_image(data))[0, :, 0].astype(int)
    assert np.abs(got - expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 7, 255], [0, 7, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([-100, 0, 100], [0, 128, 255]),
        ([0, 10**6, 2 * 10**6], [0, 128, 255]),
    ],
)
def test_32_bit_integers_find_their_range(values, expected):
    data = tiff(np.array([values], dtype=np.int32), bits=32, sample_format=2)
    assert np.abs(np.asarray(decode_image(data))[0, :, 0].astype(int) - expected).max() <= 1


def test_transparency_is_laid_over_white():
    pixels = np.array([[[255, 0, 0, 0], [255, 0, 0, 255], [0, 0, 0, 128]]], dtype=np.uint8)
    for kind in ("PNG", "TIFF"):
        picture = decode_image(encode(Image.fromarray(pixels), kind))
        assert np.asarray(picture)[0].tolist() == [[255, 255, 255], [255, 0, 0], [127, 127, 127]]
    grey = Image.fromarray(np.array([[[0, 0], [0, 255], [200, 128]]], dtype=np.uint8), "LA")
    assert np.asarray(decode_image(encode(grey, "PNG")))[0, :, 0].tolist() == [255, 0, 227]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    picture = decode_image(encode(image, kind, transparency=0))
    assert np.asarray(picture)[0].tolist() == [[255, 255, 255], [200, 100, 50]]


def test_a_transparent_colour_of_an_opaque_png_is_white():
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    picture = decode_image(encode(image, "PNG", transparency=(1, 2, 3)))
    assert np.asarray(picture)[0].tolist() == [[255, 255, 255], [4, 5, 6]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind):
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow ink print red
    red, green, blue = np.asarray(decode_image(encode(ink, kind))).mean(axis=(0, 1))
    assert red > 230
    assert max(green, blue) < 40


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "RGB"])
def test_other_modes_keep_the_picture(mode):
    source = Image.new("RGB", (40, 40), "white")
    ImageDraw.Draw(source).rectangle((0, 0, 19, 39), fill="black")
    picture = np.asarray(decode_image(encode(source.convert(mode), "TIFF")))
    assert picture[:, :20].max() <= 1
    assert picture[:, 20:].min() >= 254


@pytest.mark.parametrize(("lab", "rgb"), [((255, 128, 128), 255), ((0, 128, 128), 0), ((137, 128, 128), 128)])
def test_lab_greys(lab, rgb):
    # 128 is Pillow's neutral a and b; CIE L* 53.6 (137 of 255) is the grey of sRGB value 128.
    data = encode(Image.new("LAB", (8, 8), lab), "TIFF")
    assert np.abs(np.asarray(decode_image(data)).astype(int) - rgb).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames(kind):
    frames = [Image.new("RGB", (12, 12), colour) for colour in ("red", "blue", "lime")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    red, green, blue = np.asarray(decode_image(data)).mean(axis=(0, 1))
    assert red > 240
    assert max(green, blue) < 10


def test_a_jpeg_may_be_decoded_at_a_reduced_size():
    data = encode(photo(800, 600), "JPEG", quality=95)
    full, reduced = decode_image(data), decode_image(data, reduce_to=140)
    assert (full.size, reduced.size) == ((800, 600), (200, 150))
    wanted = np.asarray(full.resize(reduced.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(reduced).astype(int) - wanted).mean() < 2
    assert decode_image(data, reduce_to=601).size == (800, 600)
    assert decode_image(encode(photo(800, 600), "PNG"), reduce_to=10).size == (800, 600)


@given(width=st.integers(8, 400), height=st.integers(8, 400), reduce_to=st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_a_reduced_size_keeps_the_shortest_side_wanted(width, height, reduce_to):
    picture = decode_image(encode(photo(width, height), "JPEG"), reduce_to=reduce_to)
    assert min(picture.size) >= min(reduce_to, width, height)
    assert (
        min(picture.size) <= 2 * reduce_to  # sizes are rounded up
        or 8 * min(picture.size) <= min(width, height) + 7
        or picture.size == (width, height)
    )


def test_pillow_warnings_are_silent_in_threads_and_filters_are_left_alone():
    palette = Image.new("P", (4, 4))
    palette.putpalette([1, 2, 3] * 256)
    data = encode(palette, "PNG", transparency=bytes(range(256)))
    huge = encode(Image.new("1", (10000, 9500)), "PNG")  # above Pillow's warning, below its error
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        threads = [threading.Thread(target=lambda: [decode_image(data) for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        decode_image(huge)
        for thread in threads:
            thread.join()
        assert list(warnings.filters) == before
    assert not caught


def test_formats_are_told_by_content():
    for kind, name in zip(
        ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"], ALLOWED_FORMATS, strict=False
    ):
        data = encode(photo(), kind)
        assert sniff_format(data) == name
        assert read_header(data) == (name, Image.open(io.BytesIO(data)).mode, 120, 90)
    assert sniff_format(b"RIFF1234WAVE") is None
    assert set(EXTENSIONS.values()) == set(ALLOWED_FORMATS)
    with pytest.raises(ImageError):
        read_header(b"nothing")


def test_image_errors_travel_between_processes():
    error = failure(b"", name="a.jpg")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.kind, str(copy)) == (error.kind, str(error))


def test_a_transparent_value_of_a_grey_png_of_16_bits_is_white():
    values = np.tile(np.linspace(0, 65535, 64).astype(">u2"), (32, 1))
    values[:, :8] = 0
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 64, 32, 16, 0, 0, 0, 0)), (b"tRNS", b"\0\0")]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    picture = np.asarray(decode_image(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)))
    assert picture[:, :8].min() == 255
    assert picture[0, 8, 0] < 40
    assert picture[0, -1, 0] == 255


def test_half_a_webp_is_cut_short():
    data = encode(photo(64, 48), "WEBP", lossless=True)
    with pytest.raises(ImageError, match="WebP file cut short") as caught:
        decode_image(data[: len(data) // 2])
    assert caught.value.kind == "truncated"


def bmp(masks: tuple[int, ...], bits: int) -> bytes:
    """An 8 x 8 BMP with bit fields."""
    rows = bytes(8 * 8 * bits // 8)
    fields = struct.pack(f"<{len(masks)}I", *masks)
    header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, bits, 3, len(rows), 2835, 2835, 0, 0)
    start = 14 + len(header) + len(fields)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + fields + rows


@pytest.mark.parametrize(
    ("masks", "bits"),
    [((0xF00, 0xF0, 0xF), 16), ((0xFE000000, 0x1FE0000, 0x1FC00), 32), ((0x3FF00000, 0xFFC00, 0x3FF), 32)],
)
def test_whole_files_of_a_kind_that_is_not_read_are_not_called_damaged(masks, bits):
    with pytest.raises(ImageError, match=r"a kind of BMP that is not read .* convert it") as caught:
        decode_image(bmp(masks, bits))
    assert caught.value.kind == "format"
    assert "damaged" not in str(caught.value)


def test_premultiplied_grey_is_laid_over_white():
    image = Image.new("La", (4, 4), (100, 200))
    assert np.asarray(upright_rgb(image))[0, 0].tolist() == [155, 155, 155]
