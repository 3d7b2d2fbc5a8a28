"""PNG files without the text and colour profiles that are so long that Pillow refuses the file."""

import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_LIMIT = 2**20
"""Bytes of text: Pillow's own limit for one chunk."""


def without_large_text(data: bytes) -> bytes | None:
    """A PNG file less its text chunks and profiles of over 1 MB, unpacked; None if there is none of these.

    No more than 1 MB of a chunk is ever unpacked, so a small file cannot take much memory.
    """
    if not data.startswith(_SIGNATURE):
        return None
    kept, place = [_SIGNATURE], len(_SIGNATURE)
    while place + 8 <= len(data):
        kind = data[place + 4 : place + 8]
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if kind not in _TEXT or not _is_large(kind, data[place + 8 : end - 4]):
            kept.append(data[place:end])
        place = end
    lighter = b"".join((*kept, data[place:]))
    return lighter if len(lighter) < len(data) else None


def _is_large(kind: bytes, body: bytes) -> bool:
    if len(body) >= _LIMIT:
        return True
    _, _, rest = body.partition(b"\0")
    if kind == b"iTXt" and rest[:1] == b"\1":
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif kind in (b"zTXt", b"iCCP"):
        rest = rest[1:]
    else:
        return False
    try:
        unpacked = zlib.decompressobj()
        return len(unpacked.decompress(rest, _LIMIT)) >= _LIMIT
    except zlib.error:
        return False
