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


def left_out_reason(name: str) -> str | None:
    """Why a file that is meant as an image is not read, and what to do; None for other files."""
    return _REASONS.get(posixpath.splitext(name)[1].lower())
