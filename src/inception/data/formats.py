"""Files that people mean as images and that are not read: what they are, and what to do."""

import posixpath
from importlib.util import find_spec

from PIL import features

HAS_HEIC = find_spec("pillow_heif") is not None
"""Whether HEIC files are read: the extra `heic` is installed."""
HAS_AVIF = bool(features.check("avif"))
"""Whether AVIF files are read: Pillow was built with it."""

_CONVERT = "not read: convert to PNG or JPEG"
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "HEIC": ("not read: pip install pillow-heif, or convert to JPEG", (".heic", ".heif", ".hif")),
    "AVIF": (_CONVERT, (".avif", ".avifs")),
    "JPEG XL": (_CONVERT, (".jxl",)),
    "JPEG 2000": (_CONVERT, (".jp2", ".j2k", ".jpf", ".jpx", ".j2c")),
    "camera RAW": (
        "not read: develop to JPEG or TIFF",
        (
            *(".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".orf", ".rw2"),
            *(".raf", ".pef", ".srw", ".x3f", ".3fr", ".iiq", ".rwl", ".kdc", ".dcr", ".erf", ".mrw"),
        ),
    ),
    "Photoshop": (_CONVERT, (".psd", ".psb")),
    "GIMP": (_CONVERT, (".xcf",)),
    "SVG": (_CONVERT, (".svg", ".svgz")),
    "PDF": (_CONVERT, (".pdf",)),
    "video": (
        "not read: save its frames as images",
        (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".wmv", ".mpg", ".mpeg", ".3gp"),
    ),
    "DICOM": (_CONVERT, (".dcm", ".dicom")),
    "OpenEXR or HDR": (_CONVERT, (".exr", ".hdr")),
    "TGA": (_CONVERT, (".tga",)),
    "ICO": (_CONVERT, (".ico", ".icns")),
    "DirectDraw surface": (_CONVERT, (".dds",)),
    "NumPy array": (_CONVERT, (".npy", ".npz")),
}
_READ = (*(("HEIC",) if HAS_HEIC else ()), *(("AVIF",) if HAS_AVIF else ()))
_REASONS = {
    ending: f"{kind}, {what}"
    for kind, (what, endings) in _KINDS.items()
    for ending in endings
    if kind not in _READ
}


_MAGIC = (
    (0, b"\0\0\0\x0cJXL ", ".jxl"),
    (0, b"\xff\x0a", ".jxl"),
    (0, b"\0\0\0\x0cjP  ", ".jp2"),
    (0, b"\xff\x4f\xff\x51", ".j2k"),
    (0, b"8BPS", ".psd"),
    (0, b"gimp xcf", ".xcf"),
    (0, b"%PDF-", ".pdf"),
    (0, b"\x76\x2f\x31\x01", ".exr"),
    (0, b"#?RADIANCE", ".hdr"),
    (0, b"DDS ", ".dds"),
    (0, b"\x93NUMPY", ".npy"),
    (0, b"\x1a\x45\xdf\xa3", ".mkv"),
    (128, b"DICM", ".dcm"),
    *((4, b"ftyp" + brand, ".heic") for brand in (b"hei", b"hev", b"mif1", b"msf1")),
    (4, b"ftypavi", ".avif"),
    *((4, b"ftyp" + brand, ".mp4") for brand in (b"iso", b"mp4", b"M4V", b"qt", b"3gp", b"avc1")),
)
HEAD_BYTES = 256
"""As many first bytes of a file tell its format."""


def left_out_by_content(head: bytes) -> str | None:
    """As `left_out_reason`, by the first bytes of a file."""
    ending = next((ending for at, magic, ending in _MAGIC if head.startswith(magic, at)), "")
    return _REASONS.get(ending)


def left_out_reason(name: str) -> str | None:
    """Why a file that is meant as an image is not read, and what to do; None for other files."""
    return _REASONS.get(posixpath.splitext(name)[1].lower())
