"""Kinds of TIFF that Pillow decodes wrongly or not at all: right, or refused by name."""

import io
import itertools
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inception.data.decode import decode_image
from inception.errors import ImageError

SIDE = 48
RAMP = np.tile(np.linspace(0, 1, SIDE), (SIDE, 1))
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
GREY, RGB, CMYK = 1, 2, 5
NONE, LZW, DEFLATE, PACKBITS, WEBP = 1, 5, 8, 32773, 50001


def packed(content: bytes, width: int, compression: int) -> bytes:
    """Bytes of rows of `width`, as libtiff packs them (through Pillow)."""
    if compression == NONE:
        return content
    if compression == DEFLATE:
        return zlib.compress(content)
    stream = io.BytesIO()
    image = Image.frombytes("L", (width, len(content) // width), content)
    names = {LZW: "tiff_lzw", PACKBITS: "packbits"}
    image.save(stream, "TIFF", compression=names[compression], strip_size=1 << 24)
    stored = Image.open(io.BytesIO(stream.getvalue()))
    start, size = stored.tag_v2[273][0], stored.tag_v2[279][0]
    return stream.getvalue()[start : start + size]


def predicted(numbers: np.ndarray, predictor: int) -> np.ndarray:
    """Rows x width x samples as differences from the left neighbour."""
    if predictor == 1:
        return numbers
    whole = numbers.view(f"{numbers.dtype.byteorder.replace('|', '')}u{numbers.dtype.itemsize}")
    differences = np.concatenate([whole[:, :1], whole[:, 1:] - whole[:, :-1]], axis=1)
    return differences.astype(whole.dtype)


def tiff(  # noqa: PLR0912 - one branch for each field
    planes: list[np.ndarray],
    *,
    order: str = "<",
    big: bool = False,
    planar: bool = False,
    tile: int = 0,
    compression: int = NONE,
    predictor: int = 1,
    photometric: int = GREY,
    bits: int = 0,
    extra: int | None = None,
    orientation: int = 1,
) -> bytes:
    """A TIFF file of these planes of one number type, written as the specification says."""
    dtype = planes[0].dtype
    kind = {"u": UNSIGNED, "i": SIGNED, "f": FLOAT}[dtype.kind]
    depth = bits or 8 * dtype.itemsize
    pixels = np.stack(planes, -1).astype(dtype.newbyteorder(order))
    groups = [pixels[..., n : n + 1] for n in range(len(planes))] if planar else [pixels]
    step = tile or 16
    parts = []
    for group in groups:
        lefts = range(0, SIDE, tile) if tile else (0,)
        for top, left in itertools.product(range(0, SIDE, step), lefts):
            part = group[top : top + step, left : left + (tile or SIDE)]
            if tile:
                part = np.pad(part, [(0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)])
            rows = predicted(np.ascontiguousarray(part), predictor)
            if bits:
                single = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
                content = np.packbits(single.astype(np.uint8).reshape(len(rows), -1), axis=1).tobytes()
            else:
                content = rows.tobytes()
            parts.append(packed(content, len(content) // len(rows), compression))
    head = 16 if big else 8
    starts = [head + sum(map(len, parts[:number])) for number in range(len(parts))]
    fields = {
        256: ("I", [SIDE]),
        257: ("I", [SIDE]),
        258: ("H", [depth] * len(planes)),
        259: ("H", [compression]),
        262: ("H", [photometric]),
        274: ("H", [orientation]),
        277: ("H", [len(planes)]),
        284: ("H", [2 if planar else 1]),
        317: ("H", [predictor]),
        339: ("H", [kind] * len(planes)),
    }
    if extra is not None:
        fields[338] = ("H", [extra])
    if tile:
        fields |= {
            322: ("I", [tile]),
            323: ("I", [tile]),
            324: ("I", starts),
            325: ("I", list(map(len, parts))),
        }
    else:
        fields |= {273: ("I", starts), 278: ("I", [step]), 279: ("I", list(map(len, parts)))}
    wide = "Q" if big else "I"
    at = head + sum(map(len, parts))
    values, entries = b"", b""
    for tag, (letter, numbers) in sorted(fields.items()):
        content = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(content) > struct.calcsize(wide):
            place = struct.pack(order + wide, at + len(values))
            values += content
        else:
            place = content.ljust(struct.calcsize(wide), b"\0")
        entries += struct.pack(f"{order}HH{wide}", tag, {"H": 3, "I": 4}[letter], len(numbers)) + place
    directory = (
        struct.pack(order + ("Q" if big else "H"), len(fields)) + entries + struct.pack(order + wide, 0)
    )
    mark = b"II" if order == "<" else b"MM"
    if big:
        start = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, at + len(values))
    else:
        start = mark + struct.pack(f"{order}HI", 42, at + len(values))
    return start + b"".join(parts) + values + directory


def whole(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values 0..1 over the whole range of a type; floats as they are."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return values.astype(kind)
    limits = np.iinfo(kind)
    return np.rint(values * (int(limits.max) - int(limits.min)) + limits.min).astype(kind)


def assert_ramp(data: bytes, red_to_blue: bool = False) -> None:
    picture = np.asarray(decode_image(data, name="it")).astype(int)
    planes = [1 - RAMP, 0 * RAMP, RAMP] if red_to_blue else [RAMP] * 3
    assert np.abs(picture - np.rint(255 * np.stack(planes, -1))).max() <= 2


@pytest.mark.parametrize("dtype", ["i1", "i2", "u4", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "layout", [{}, {"tile": 16}, {"compression": LZW}, {"compression": DEFLATE}, {"big": True}]
)
def test_grey_of_every_number_type(dtype, order, layout):
    assert_ramp(tiff([whole(RAMP, dtype)], order=order, **layout))


@pytest.mark.parametrize("dtype", ["u2", "i2", "u4", "f2", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE, PACKBITS])
def test_colour_of_every_number_type(dtype, order, planar, compression):
    planes = [whole(plane, dtype) for plane in (1 - RAMP, 0 * RAMP, RAMP)]
    data = tiff(planes, order=order, planar=planar, compression=compression, photometric=RGB)
    assert_ramp(data, red_to_blue=True)


@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14])
@pytest.mark.parametrize("compression", [NONE, LZW])
def test_depths_that_fill_no_bytes(bits, compression):
    steps = 2**bits - 1
    exact = np.rint(RAMP * steps) / steps
    numbers = np.rint(RAMP * steps).astype("u2")
    picture = np.asarray(decode_image(tiff([numbers], bits=bits, compression=compression))).astype(int)
    assert np.abs(picture[..., 0] - np.rint(255 * exact)).max() <= 1


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_differences_from_the_left_neighbour_are_summed(dtype, order):
    planes = [whole(plane, dtype) for plane in (1 - RAMP, 0 * RAMP, RAMP)]
    data = tiff(planes, order=order, planar=True, photometric=RGB, predictor=2, compression=DEFLATE)
    assert_ramp(data, red_to_blue=True)


def test_transparent_samples_are_laid_over_white():
    alpha = np.zeros((SIDE, SIDE), "u2")
    data = tiff([whole(0 * RAMP, "u2"), alpha], planar=True, extra=2)
    assert np.asarray(decode_image(data)).min() == 255
    assert np.asarray(decode_image(tiff([whole(0 * RAMP, "u2"), ~alpha], planar=True, extra=2))).max() == 0


def test_inverted_grey_and_orientation():
    assert_ramp(tiff([whole(1 - RAMP, "f4")], photometric=0))
    turned = np.asarray(decode_image(tiff([whole(RAMP, "f4")], orientation=2))).astype(int)
    assert np.abs(turned[..., 0] - np.rint(255 * (1 - RAMP))).max() <= 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"planes": 5}, "8-bit grey, 5 sample"),
        ({"photometric": 32845, "planes": 3}, "LogLuv"),
        ({"photometric": 8, "planes": 3, "dtype": "u2"}, "16-bit Lab"),
        ({"compression": WEBP, "planes": 1}, "WebP"),
    ],
)
def test_kinds_that_are_not_read_are_named(more, words, monkeypatch):
    monkeypatch.setitem(globals(), "packed", lambda content, width, compression: content)
    options = dict(more)
    planes = [whole(RAMP, options.pop("dtype", "u1"))] * options.pop("planes")
    with pytest.raises(ImageError, match=f"kind of TIFF that is not read .*{words}.*convert it to 8-bit RGB"):
        decode_image(tiff(planes, **options))


@pytest.mark.parametrize("compression", [NONE, DEFLATE, LZW])
def test_a_cut_file_is_called_so(compression):
    data = tiff([whole(RAMP, "f4")], compression=compression)
    (directory,) = struct.unpack_from("<I", data, 4)
    shorter = data[:8] + data[8 + 200 :]  # the directory stays whole, the pixels do not
    shorter = shorter[:4] + struct.pack("<I", directory - 200) + shorter[8:]
    with pytest.raises(ImageError) as caught:
        decode_image(shorter[: directory - 200 - 50] + shorter[directory - 200 :])
    assert caught.value.kind in ("truncated", "corrupt")


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_files_are_refused_or_read_and_nothing_else(data):
    content = bytearray(
        tiff([whole(RAMP, "f4")], compression=data.draw(st.sampled_from([NONE, DEFLATE, LZW])))
    )
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.one_of(st.integers(0, 40), st.integers(len(content) - 220, len(content) - 1)))
        content[place] = data.draw(st.integers(0, 255))
    try:
        decode_image(bytes(content), max_pixels=1 << 20)
    except ImageError as error:
        assert len(str(error)) < 400


@pytest.mark.skipif(
    not list(Path(PIL.__file__).parents[1].glob("pillow.libs/libtiff*")), reason="no such library"
)
def test_libtiff_writes_nothing_of_its_own(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.uint8(255 * RAMP)).save(stream, "TIFF", compression="tiff_lzw")
    content = bytearray(stream.getvalue())
    content[60:200] = b"\xff" * 140
    (tmp_path / "bad.tif").write_bytes(content)
    script = (
        "import sys; from pathlib import Path; from inception.data.decode import decode_image\n"
        "try: decode_image(Path(sys.argv[1]).read_bytes())\nexcept Exception as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "bad.tif"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
