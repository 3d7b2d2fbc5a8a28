"""One way from the bytes of an image file to an upright 8-bit RGB picture, or to an `ImageError`.

Only the formats of `ALLOWED_FORMATS` are accepted, so that a hostile file cannot reach Pillow's rarely used
parsers.
"""

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from inception.data.depth import from_16_bit, from_32_bit, peak, stored_in_16_bits
from inception.data.formats import HAS_AVIF, HAS_HEIC
from inception.data.memory import estimate, room_for
from inception.data.png_text import without_large_text
from inception.data.tiff import read_tiff, silence_libtiff
from inception.errors import ImageError, ImageErrorKind

# Importing the plugins by name keeps Image.open from importing all of Pillow's parsers.
_FORMATS = tuple(
    str(plugin.format)
    for plugin in (
        *(JpegImageFile, PngImageFile, WebPImageFile, BmpImageFile, GifImageFile, TiffImageFile),
        *(PpmImageFile, *((AvifImageFile,) if HAS_AVIF else ())),
    )
)

ALLOWED_FORMATS = (
    *("JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF", "PPM"),
    *(("AVIF",) if HAS_AVIF else ()),
    *(("HEIC",) if HAS_HEIC else ()),
)
EXTENSIONS: dict[str, str] = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".mpo": "JPEG",
    ".png": "PNG",
    ".apng": "PNG",
    ".webp": "WebP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    **dict.fromkeys((".avif", ".avifs") if HAS_AVIF else (), "AVIF"),
    **dict.fromkeys((".heic", ".heif", ".hif") if HAS_HEIC else (), "HEIC"),
}
"""File name extensions (lower case, with the dot) that count as images, with the format they promise."""

DEFAULT_MAX_PIXELS = 2**27
"""134 million pixels: above the largest common cameras (108 million), below Pillow's own limit."""

DEFAULT_MAX_SCANNED_PIXELS = 2**32
"""Ten seconds of decoding; three times what a usual progressive JPEG of the most pixels has."""

_SPACES = (b" ", b"\t", b"\r", b"\n")
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    *((b"P" + kind + space, "PPM") for kind in (b"1", b"2", b"3", b"4", b"5", b"6") for space in _SPACES),
)
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_START_OF_SCAN = b"\xff\xda"
_ORIENTATION = 0x0112
_NOT_READ = re.compile(r"unsupported|not supported|cannot handle|unknown compression")
_IGNORE_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)

# Without a handler, logging prints Pillow's errors on standard error; here they become ImageErrors.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def decode_image(
    data: bytes,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_scanned_pixels: int = DEFAULT_MAX_SCANNED_PIXELS,
    reduce_to: int | None = None,
    bits: int = 0,
    name: str = "the image",
) -> Image.Image:
    """Decode an image file to an upright RGB picture.

    EXIF (also TIFF and XMP) orientation is applied; a damaged EXIF block is ignored. Of several frames the
    first is taken. Transparent pixels are laid over white. Grey values of more than 8 bits are divided by
    their full range, never clipped: 65535 in a PNG; in a TIFF what its tags say, else the smallest of 8, 12
    and 16 bits that holds all values. 32-bit integers and floats do likewise (floats also 0..1), and other
    values, such as negative ones, are stretched from minimum to maximum. CMYK and LAB are converted
    without the file's colour profile.

    Args:
        data: the whole file, of one of `ALLOWED_FORMATS`.
        max_pixels: width x height above which the file is refused before its pixels are decoded. Pillow's
            own limit of 179 million pixels (`2 * PIL.Image.MAX_IMAGE_PIXELS`) holds as well.
        max_scanned_pixels: the same for width x height x scans of a progressive JPEG, each of whose scans
            goes over all pixels, and may take no more than a few bytes.
        reduce_to: let a JPEG be decoded at 1/2, 1/4 or 1/8 of its size while its shortest side stays at
            least this many pixels: much faster, nearly equal to a good reduction. Other formats ignore it.
        bits: depth of the values of grey images stored in 16 bits a sample, where the file does not say
            it (8 to 16); 0: as above. An image with higher values is refused.
        name: how an error names the file.

    Returns:
        A Pillow image in mode RGB, with no metadata.

    Raises:
        ImageError: for whatever is wrong with `data`; nothing else is raised.
    """
    with _silence_pillow():
        try:
            return _decode(data, max_pixels, max_scanned_pixels, reduce_to, bits, name)
        except ImageError:
            raise
        except Exception as error:  # Pillow's parsers raise almost any type on damaged input
            # Pillow refuses a PNG for more than 1 MB of text or profile, which no pixel depends on.
            if (lighter := without_large_text(data)) is not None:
                return decode_image(lighter, max_pixels=max_pixels, reduce_to=reduce_to, bits=bits, name=name)
            raise _explain(error, data, name, max_pixels) from error


def upright_rgb(image: Image.Image, *, bits: int = 0, name: str = "the image") -> Image.Image:
    """An image that Pillow has opened, turned into what `decode_image` makes of the same file.

    Args:
        image: in any mode, loaded or not; it is left as it is.
        bits: as for `decode_image`.
        name: how an error names it.

    Raises:
        ImageError: if it has no pixels or its file turns out to be damaged.
    """
    if 0 in image.size:
        raise ImageError("empty", f"{name} has no pixels ({image.width} x {image.height}).")
    with _silence_pillow():
        try:
            return _upright_rgb(image, bits, name)
        except ImageError:
            raise
        except Exception as error:  # as in decode_image
            raise _explain(error, b"\0", name, DEFAULT_MAX_PIXELS) from error


class ImageHeader(NamedTuple):
    """What an image file says of itself: format (one of `ALLOWED_FORMATS`), Pillow's mode, size in pixels."""

    format: str
    mode: str
    width: int
    height: int


def read_header(data: bytes, *, name: str = "the image") -> ImageHeader:
    """Read an image file's header; its pixels may still prove to be damaged.

    Raises:
        ImageError: if no image can be expected of `data`; nothing else is raised.
    """
    with _silence_pillow():
        try:
            with _open(data) as image:
                return ImageHeader(sniff_format(data) or str(image.format), image.mode, *image.size)
        except Exception as error:
            if (lighter := without_large_text(data)) is not None:
                return read_header(lighter, name=name)
            raise _explain(error, data, name, DEFAULT_MAX_PIXELS) from error


def highest_value(data: bytes) -> int | None:
    """The highest value of a readable image stored in 16 bits a sample (see `depth.peak`); None of others."""
    try:
        with _silence_pillow(), _open(data) as image:
            return peak(image)
    except Exception:  # as in decode_image, which has read it
        lighter = without_large_text(data)
        return None if lighter is None else highest_value(lighter)


def sniff_format(data: bytes) -> str | None:
    """The format that the first bytes of a file announce (one of `ALLOWED_FORMATS`), or None."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        return _sniff_box(data)
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def _sniff_box(data: bytes) -> str | None:
    """AVIF and HEIC share a container; the brands in its first box tell them apart."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if not brands.isdisjoint((b"avif", b"avis")):
        return "AVIF" if HAS_AVIF else None
    return "HEIC" if HAS_HEIC and not brands.isdisjoint(_HEIC_BRANDS) else None


def is_visible_image(name: str) -> bool:
    """Whether a path in a folder or archive (with `/`) is an image by its extension, and nothing hidden."""
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return PurePosixPath(name).suffix.lower() in EXTENSIONS and not hidden


@contextmanager
def _silence_pillow() -> Iterator[None]:
    # warnings.catch_warnings is not safe with threads. Inserting and removing one equal entry per caller
    # is: both are single list operations, and the entry is there while any caller is inside.
    filters: Any = warnings.filters
    filters.insert(0, _IGNORE_PILLOW)
    try:
        yield
    finally:
        with suppress(ValueError):  # someone else reset the list
            filters.remove(_IGNORE_PILLOW)


def _open(data: bytes, name: str = "the image", max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    if sniff_format(data) == "HEIC":
        return _open_heic(data)
    if sniff_format(data) == "TIFF":
        silence_libtiff()
        if (own := read_tiff(data, name, max_pixels)) is not None:
            return own
    return Image.open(io.BytesIO(data), formats=_FORMATS)


def _open_heic(data: bytes) -> Image.Image:
    import pillow_heif  # the extra `heic`; only here, as importing it takes its time

    pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(data), formats=("HEIF",))


def _decode(
    data: bytes, max_pixels: int, max_scanned: int, reduce_to: int | None, bits: int, name: str
) -> Image.Image:
    with _open(data, name, max_pixels) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise _too_large(name, f"{width} x {height}", max_pixels)
        # A few bytes make a progressive JPEG go over all its pixels once more; a thousand times is an attack.
        scans = data.count(_START_OF_SCAN) if image.info.get("progressive") else 1
        if scans * width * height > max_scanned:
            raise ImageError(
                "too_large", f"{name} is a JPEG of {scans} scans, which no camera makes; delete it."
            )
        if reduce_to is not None:
            image.draft(None, (reduce_to, reduce_to))
        width, height = image.size
        what = f"a {image.format or 'TIFF'} file of {width} x {height}"
        needed = estimate(
            image.format or "TIFF", image.mode, width * height, bool(image.info.get("progressive"))
        )
        with room_for(needed, name, what):
            return _upright_rgb(image, bits, name)


def _upright_rgb(image: Image.Image, bits: int, name: str) -> Image.Image:
    # Before loading, after which Pillow forgets how the samples are stored.
    bits = bits if bits and stored_in_16_bits(image) else 0
    image.load()
    upright = _TRANSPOSE.get(_orientation(image))
    picture = _to_rgb(image, bits, name)
    if upright is not None:
        picture = picture.transpose(upright)
    # A second reader of the orientation tag would turn the picture twice.
    picture.info = {}
    return picture


def _orientation(image: Image.Image) -> int:
    # Read after loading: Pillow turns TIFFs by itself while loading and then removes the tag.
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block must not cost the picture
        return 1


def _to_rgb(image: Image.Image, bits: int, name: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        picture = from_16_bit(image, bits, name)
        if isinstance(clear := image.info.get("transparency"), int):  # of a grey PNG, one value
            picture.paste("white", mask=Image.fromarray(np.asarray(image) == clear))
        return picture
    if image.mode in ("I", "F"):
        return from_32_bit(image, bits, name)
    if bits:
        raise ImageError(
            "format",
            f"{name} is a colour image of 16 bits, of which 8 are read: --bits is for grey ones; convert it.",
        )
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        # Pillow turns premultiplied grey into no other mode.
        layered = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGB", layered.size, "white")
        white.paste(layered, mask=layered.getchannel("A"))
        return white
    return image.convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = (ImageCms.createProfile(space) for space in ("LAB", "sRGB"))
    return ImageCms.ImageCmsTransform(
        ImageCms.ImageCmsProfile(lab), ImageCms.ImageCmsProfile(srgb), "LAB", "RGB"
    ).apply(image)


def _too_large(name: str, size: str, max_pixels: int) -> ImageError:
    return ImageError(
        "too_large",
        f"{name} has {size} pixels, over the limit of {max_pixels:,}; make it smaller or raise the limit.",
    )


def _explain(error: Exception, data: bytes, name: str, max_pixels: int) -> ImageError:
    if isinstance(error, Image.DecompressionBombError):
        return _too_large(name, "far too many", max_pixels)
    if isinstance(error, MemoryError):
        return ImageError("too_large", f"{name} needs more memory than there is; make it smaller.")
    if not data:
        return ImageError("empty", f"{name} is empty (0 bytes); replace or delete the file.")
    announced = sniff_format(data)
    if announced is None and isinstance(error, UnidentifiedImageError):
        allowed = ", ".join(ALLOWED_FORMATS)
        return ImageError("format", f"{name} is in none of the formats {allowed}; convert it or delete it.")
    detail = "its header is damaged" if isinstance(error, UnidentifiedImageError) else str(error)
    detail = detail.strip() or type(error).__name__
    what = announced or "image"
    words = detail.lower()
    if _NOT_READ.search(words):
        return ImageError(
            "format", f"{name} is a kind of {what} that is not read ({detail}); convert it to 8-bit RGB."
        )
    cut = announced == "WebP" and int.from_bytes(data[4:8], "little") + 8 > len(data)
    if cut or isinstance(error, EOFError) or "truncated" in words or "not enough image data" in words:
        kind: ImageErrorKind = "truncated"
        text = f"{name} is a {what} file cut short ({detail}); copy it again or delete it."
    else:
        kind, text = "corrupt", f"{name} is a damaged {what} file ({detail}); copy it again or delete it."
    return ImageError(kind, text)
