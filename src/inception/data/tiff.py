"""TIFF files that Pillow decodes wrongly or not at all: other depths, signs, floats, separate planes.

Pillow is right for 8-bit samples and for 16-bit contiguous ones; `benchmarks/tiff_kinds.py` compares every
kind. Source of tags and layouts: TIFF revision 6.0 (1992), and Adobe's technical note 3 for float predictors.
"""

import ctypes
import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from inception.data.depth import levels
from inception.data.memory import room_for
from inception.errors import ImageError

_TIMES = 3.0
"""Peak memory as a multiple of the samples: they, a part unpacked, and levels in 8 bits (measured: 2.6)."""

_SIZES = {1: "B", 2: "c", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q", 18: "Q"}
_MAX_ENTRIES, _MAX_VALUES = 1024, 1 << 20
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _ORIENTATION, _SAMPLES, _ROWS, _STRIP_BYTES = 273, 274, 277, 278, 279
_PLANAR, _PREDICTOR, _PALETTE, _TILE_WIDTH, _TILE_HEIGHT = 284, 317, 320, 322, 323
_TILES, _TILE_BYTES, _EXTRA, _FORMAT, _FILL_ORDER, _MAX_VALUE = 324, 325, 338, 339, 266, 281
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_INVERTED, _GREY, _RGB, _INDEXED, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_PHOTOMETRICS = {4: "transparency mask", _YCBCR: "YCbCr", _LAB: "Lab", 9: "ICC Lab", 10: "ITU Lab"}
_PHOTOMETRICS |= {32803: "raw sensor data", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw"}
_COMPRESSIONS = {2: "CCITT", 3: "fax", 4: "fax", 6: "old JPEG", 7: "JPEG", 34661: "JBIG", 34676: "LogLuv"}
_COMPRESSIONS |= {34677: "LogLuv24", 34712: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL"}
_COMPRESSIONS |= {33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34892: "lossy JPEG"}
_NONE, _JPEG, _DEFLATE, _BY_PILLOW = 1, 7, (8, 32946), (5, 32773, 34925, 50000)
_OF_PILLOW = {_NONE, 2, 3, 4, 6, _JPEG, *_DEFLATE, *_BY_PILLOW}
_COLOURS = {_INVERTED: 1, _GREY: 1, _RGB: 3, _INDEXED: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}

Samples = NDArray[Any]


@dataclass(frozen=True)
class _Layout:
    """The first image of a file, as its tags describe it."""

    order: str
    big: bool
    tags: dict[int, tuple[Any, ...]]

    def value(self, tag: int, default: int) -> int:
        found = self.tags.get(tag)
        return int(found[0]) if found else default

    @property
    def size(self) -> tuple[int, int]:
        return self.value(_WIDTH, 0), self.value(_HEIGHT, 0)

    @property
    def bits(self) -> tuple[int, ...]:
        return tuple(map(int, self.tags.get(_BITS, (1,))))

    @property
    def samples(self) -> int:
        return self.value(_SAMPLES, 1)

    @property
    def format(self) -> int:
        return self.value(_FORMAT, _UNSIGNED)

    @property
    def photometric(self) -> int:
        return self.value(_PHOTOMETRIC, -1)

    @property
    def compression(self) -> int:
        return self.value(_COMPRESSION, _NONE)

    @property
    def planar(self) -> bool:
        return self.value(_PLANAR, 1) == 2 and self.samples > 1

    @property
    def extra(self) -> int:
        return self.samples - _COLOURS.get(self.photometric, self.samples)

    @property
    def words(self) -> str:
        """What kind it is, for messages."""
        kind = {_SIGNED: "signed ", _FLOAT: "float "}.get(self.format, "")
        colour = {_INVERTED: "grey", _GREY: "grey", _RGB: "RGB", _INDEXED: "palette", _CMYK: "CMYK"}
        named = colour.get(self.photometric) or _PHOTOMETRICS.get(self.photometric, "of unknown colours")
        planes = "planar " if self.planar else ""
        packed = f", {_COMPRESSIONS[self.compression]}" if self.compression in _COMPRESSIONS else ""
        return f"{planes}{max(self.bits)}-bit {kind}{named}, {self.samples} sample(s) a pixel{packed}"


def read_tiff(data: bytes, name: str, max_pixels: int) -> Image.Image | None:
    """The first image of a TIFF that is not left to Pillow: of mode RGB, RGBA, LA, CMYK, P or I;16.

    Its orientation is in its EXIF data, as Pillow's would be.

    Args:
        data: the whole file.
        name: how an error names it.
        max_pixels: width x height above which it is left to the caller.

    Returns:
        The picture, or None where Pillow is right, or says what is damaged.

    Raises:
        ImageError: if it is whole, but of a kind that is not read, or cut short.
    """
    layout = _layout(data)
    if layout is None or math.prod(layout.size) > max_pixels or 0 in layout.size or _pillow_is_right(layout):
        return None
    _refuse_unread(layout, name)
    width, height = layout.size
    stored = 4 if max(layout.bits) < 32 and max(layout.bits) not in (8, 16) else max(1, max(layout.bits) // 8)
    needed = int(_TIMES * width * height * layout.samples * stored)
    with room_for(needed, name, f"a {layout.words} TIFF file of {width} x {height}"):
        picture = _picture(layout, _pixels(layout, data, name))
    if layout.value(_ORIENTATION, 1) != 1:
        picture.getexif()[_ORIENTATION] = layout.value(_ORIENTATION, 1)
    return picture


@cache
def silence_libtiff() -> None:
    """Stop libtiff, once for this process, from writing its own lines on standard error.

    They name no file, and what they say becomes an `ImageError`. Pillow has no option for it; where its
    libtiff is not a library of its own, nothing is done.
    """
    package = Path(PIL.__file__).parent
    for folder in (package.parent / "pillow.libs", package / ".dylibs"):
        for library in folder.glob("libtiff*"):
            with suppress(OSError, AttributeError):
                handlers = ctypes.CDLL(str(library))
                handlers.TIFFSetErrorHandler(None)
                handlers.TIFFSetWarningHandler(None)


def _layout(data: bytes) -> _Layout | None:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    try:
        version = struct.unpack_from(f"{order}H", data, 2)[0]
        big = version == 43
        at = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)[0]
        count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, at)[0]
        if version not in (42, 43) or count > _MAX_ENTRIES:
            return None
        at += 8 if big else 2
        tags = {}
        for entry in range(count):
            tag, values = _entry(data, order, big, at + entry * (20 if big else 12))
            tags[tag] = values
    except (struct.error, OverflowError):
        return None
    return _Layout(order, big, tags)


def _entry(data: bytes, order: str, big: bool, at: int) -> tuple[int, tuple[Any, ...]]:
    tag, kind, count = struct.unpack_from(f"{order}HH{'Q' if big else 'I'}", data, at)
    letters = _SIZES.get(kind)
    if letters is None or count > _MAX_VALUES:
        return tag, ()
    form = f"{order}{count * len(letters)}{letters[0]}"
    at += 12 if big else 8
    if struct.calcsize(form) > (8 if big else 4):
        at = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, at)[0]
    return tag, struct.unpack_from(form, data, at)


def _pillow_is_right(layout: _Layout) -> bool:
    """Kinds that the comparison with another reader has shown to be right."""
    unknown = layout.photometric not in (-1, *_COLOURS) or layout.compression not in _OF_PILLOW
    odd = layout.format not in (_UNSIGNED, 4) or len(set(layout.bits)) > 1
    lab_jpeg = layout.photometric == _LAB and layout.compression == _JPEG
    if unknown or odd or lab_jpeg or (layout.big and layout.order == ">"):
        return False
    bits, photometric, extra = layout.bits[0], layout.photometric, layout.extra
    if bits == 1 and layout.samples == 1:
        return True
    if bits == 8 and extra in (0, 1):
        return not layout.planar or photometric in (_RGB, _CMYK)
    grey = photometric == _GREY and layout.samples == 1
    return bits == 16 and not layout.planar and (grey or (photometric in (_RGB, _CMYK) and extra in (0, 1)))


def _refuse_unread(layout: _Layout, name: str) -> None:
    bits, kinds = set(layout.bits), {_UNSIGNED: range(1, 33), _SIGNED: (8, 16, 32), _FLOAT: (16, 32, 64)}
    known = layout.compression in (_NONE, *_DEFLATE, *_BY_PILLOW)
    read = (
        known
        and len(bits) == 1
        and len(layout.bits) in (1, layout.samples)
        and layout.bits[0] in kinds.get(layout.format, ())
        and layout.photometric in (_INVERTED, _GREY, _RGB, _INDEXED, _CMYK)
        and layout.extra in (0, 1)
        and (layout.photometric != _INDEXED or layout.format == _UNSIGNED)
        and layout.value(_FILL_ORDER, 1) == 1
        and layout.value(_PREDICTOR, 1) in (1, 2, 3)
        and (layout.value(_PREDICTOR, 1) == 1 or layout.bits[0] in (8, 16, 32, 64))
    )
    if not read:
        raise ImageError(
            "format",
            f"{name} is a kind of TIFF that is not read ({layout.words}); convert it to 8-bit RGB.",
        )


def _pixels(layout: _Layout, data: bytes, name: str) -> Samples:
    """Samples as height x width x samples, in the numbers of the file."""
    width, height = layout.size
    tiled = _TILES in layout.tags
    across = layout.value(_TILE_WIDTH, width) if tiled else width
    down = layout.value(_TILE_HEIGHT, height) if tiled else min(layout.value(_ROWS, height), height)
    if across < 1 or down < 1 or across > 2 * width + 4096 or down > 2 * height + 4096:
        raise ImageError(
            "corrupt", f"{name} is a damaged TIFF file (tiles of {across} x {down}); copy it again."
        )
    columns, lines = -(-width // across), -(-height // down)
    planes = layout.samples if layout.planar else 1
    inside = 1 if layout.planar else layout.samples
    pixels: Samples = np.empty((height, width, layout.samples), _number_type(layout))
    parts = _parts(layout, data, name, across, down, columns * lines * planes, inside)
    for number, part in enumerate(parts):
        plane, place = divmod(number, columns * lines)
        top, left = place // columns * down, place % columns * across
        target = pixels[top : top + down, left : left + across, plane : plane + inside]
        target[...] = part[: target.shape[0], : target.shape[1]]
    return pixels


def _number_type(layout: _Layout) -> str:
    bits = layout.bits[0]
    stored = next(size for size in (8, 16, 32, 64) if bits <= size)
    return f"{ {_UNSIGNED: 'u', _SIGNED: 'i', _FLOAT: 'f'}[layout.format] }{stored // 8}"


def _parts(
    layout: _Layout, data: bytes, name: str, across: int, down: int, count: int, inside: int
) -> Iterator[Samples]:
    """Strips or tiles, unpacked, as rows x width x samples."""
    tiled = _TILES in layout.tags
    starts = layout.tags.get(_TILES if tiled else _STRIPS, ())
    sizes = layout.tags.get(_TILE_BYTES if tiled else _STRIP_BYTES, ())
    row_bytes = -(-across * inside * layout.bits[0] // 8)
    if len(sizes) < count and count == 1 and layout.compression == _NONE:
        sizes = (row_bytes * down,)
    if len(starts) < count or len(sizes) < count:
        raise ImageError("truncated", f"{name} is a TIFF file cut short (parts are missing); copy it again.")
    _, height = layout.size
    lines = -(-height // down)
    for number in range(count):
        rows = down if tiled else min(down, height - number % lines * down)
        packed = data[starts[number] : starts[number] + sizes[number]]
        raw = _unpacked(layout, packed, row_bytes, rows, name)
        if len(raw) < rows * row_bytes:
            raise ImageError("truncated", f"{name} is a TIFF file cut short; copy it again or delete it.")
        content = np.frombuffer(raw, np.uint8, rows * row_bytes).reshape(rows, row_bytes)
        yield _numbers(layout, content, across, inside)


def _unpacked(layout: _Layout, packed: bytes, row_bytes: int, rows: int, name: str) -> bytes:
    if layout.compression == _NONE:
        return packed
    if layout.compression in _DEFLATE:
        try:
            return zlib.decompressobj().decompress(packed, rows * row_bytes)
        except zlib.error as error:
            raise ImageError("corrupt", f"{name} is a damaged TIFF file ({error}); copy it again.") from error
    # Other packings are those of bytes: Pillow unpacks them as a grey picture, as wide as a row has bytes.
    values = (
        (_WIDTH, row_bytes),
        (_HEIGHT, rows),
        (_BITS, 8),
        (_COMPRESSION, layout.compression),
        (_PHOTOMETRIC, _GREY),
        (_STRIPS, 8),
        (_SAMPLES, 1),
        (_ROWS, rows),
        (_STRIP_BYTES, len(packed)),
    )
    padding = b"\0" * (len(packed) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(packed) + len(padding))
    content = head + packed + padding + struct.pack("<H", len(values)) + entries + b"\0\0\0\0"
    with Image.open(io.BytesIO(content), formats=("TIFF",)) as image:
        return image.tobytes()


def _numbers(layout: _Layout, content: NDArray[np.uint8], across: int, inside: int) -> Samples:
    """Bytes of rows as the numbers that they hold, the predictor undone: rows x across x inside."""
    bits, kind = layout.bits[0], _number_type(layout)
    rows, predictor = len(content), layout.value(_PREDICTOR, 1)
    if bits not in (8, 16, 32, 64):
        single = np.unpackbits(content, axis=1)[:, : across * inside * bits].reshape(
            rows, across, inside, bits
        )
        weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint32)
        return (single @ weights).astype(kind)
    if predictor == 3:
        summed = np.cumsum(content.reshape(rows, -1, inside), axis=1, dtype=np.uint8).reshape(
            rows, bits // 8, -1
        )
        joined = np.ascontiguousarray(np.moveaxis(summed, 1, 2))  # the highest bytes of a row come first
        return joined.view(f">{kind}").reshape(rows, across, inside)
    numbers = content.view(f"{layout.order}{kind}").reshape(rows, across, inside)
    if predictor == 2:
        whole = numbers.view(f"{layout.order}u{bits // 8}")
        return np.cumsum(whole, axis=1, dtype=f"u{bits // 8}").view(kind)
    return numbers


def _picture(layout: _Layout, pixels: Samples) -> Image.Image:
    colours = _COLOURS[layout.photometric]
    if layout.photometric == _INDEXED:
        return _from_palette(layout, pixels[..., 0])
    alone = layout.samples == 1 and layout.format == _UNSIGNED and 8 < layout.bits[0] <= 16
    if alone:  # its depth may be said by the user, who alone may know it
        picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0], np.uint16))
        _describe(picture, {_BITS: (layout.bits[0],), _PHOTOMETRIC: layout.photometric, **_stated(layout)})
        return picture
    shades = _shades(layout, pixels[..., :colours])
    if layout.photometric == _INVERTED:
        shades = 255 - shades
    alpha = layout.extra == 1 and (layout.tags.get(_EXTRA) or (0,))[0] in (1, 2)
    planes = [shades[..., plane] for plane in range(colours)]
    if alpha:
        planes.append(_opacity(layout, pixels[..., colours]))
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA" if layout.photometric == _RGB else "CMYK"}.get(
        len(planes), "CMYK"
    )
    return Image.merge(mode, [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes[: len(mode)]])


def _stated(layout: _Layout) -> dict[int, tuple[int, ...]]:
    found = layout.tags.get(_MAX_VALUE)
    return {_MAX_VALUE: tuple(map(int, found))} if found else {}


def _describe(picture: Image.Image, tags: dict[int, Any]) -> None:
    """Give a picture the tags by which `depth` knows what is white."""
    picture.format = "TIFF"
    vars(picture)["tag_v2"] = tags


def _shades(layout: _Layout, pixels: Samples) -> NDArray[np.uint8]:
    bits = layout.bits[0]
    if layout.format == _UNSIGNED and bits < 32:
        return levels(pixels, full=2**bits - 1)
    return levels(pixels)


def _opacity(layout: _Layout, alpha: Samples) -> NDArray[np.uint8]:
    """Alpha values in 8 bits: opaque is the type's highest value, 1 in floats."""
    if layout.format == _FLOAT:
        return levels(np.clip(alpha, 0, 1), full=1)
    bits = layout.bits[0]
    lowest = -(2 ** (bits - 1)) if layout.format == _SIGNED else 0
    return levels(alpha.astype(np.int64) - lowest, full=2**bits - 1)


def _from_palette(layout: _Layout, indices: Samples) -> Image.Image:
    entries = np.asarray(layout.tags.get(_PALETTE, ()), np.uint32)
    count = len(entries) // 3
    table = entries[: 3 * count].reshape(3, count).T
    eight = (table >> 8 if table.size and table.max() > 255 else table).astype(np.uint8)
    if not count:
        raise ImageError("corrupt", "a TIFF file with a palette that has no colours is damaged.")
    return Image.fromarray(eight[np.minimum(indices, count - 1)])
