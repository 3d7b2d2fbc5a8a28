"""When two pictures are the same, or look the same."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from inception.data.decode import decode_image, highest_value, read_header
from inception.data.jpeg_data import lacks_data

_DEEP = ("PNG", "TIFF", "PPM")
_HASH_SIZE = (9, 8)
_THUMBNAIL = (16, 16)
_MAX_BITS = 6
_MAX_DIFFERENCE = 4.0
_MIN_CONTRAST = 8.0
_MAX_EXHAUSTIVE = 100_000
_BLOCK = 256


class PictureFacts(NamedTuple):
    """What is kept of a decoded image.

    Attributes:
        format, mode: of the file, before conversion.
        width, height: of the upright picture.
        pixels: SHA-256 of size and RGB pixels: equal only for equal pictures, whatever the file format.
        gradient: 64-bit difference hash: for each of 8 x 8 cells, is it darker than its right neighbour?
        thumbnail: 16 x 16 grey values, row by row.
        peak: highest value of an image stored in 16 bits a sample; None of others.
        filled_up: whether data is missing, in whose place the decoder has put grey.
    """

    format: str
    mode: str
    width: int
    height: int
    pixels: bytes
    gradient: int
    thumbnail: bytes
    peak: int | None = None
    filled_up: bool = False


def examine(data: bytes, *, name: str, max_pixels: int, bits: int = 0) -> PictureFacts:
    """Decode an image file fully and keep what comparing needs. Raises `ImageError`."""
    picture = decode_image(data, max_pixels=max_pixels, bits=bits, name=name)
    header = read_header(data, name=name)
    digest = hashlib.sha256(f"{picture.width} {picture.height} ".encode())
    digest.update(picture.tobytes())
    grey = picture.convert("L")
    cells = np.asarray(grey.resize(_HASH_SIZE, Image.Resampling.BOX))
    gradient = np.packbits(cells[:, :-1] < cells[:, 1:])
    thumbnail = grey.resize(_THUMBNAIL, Image.Resampling.BOX).tobytes()
    return PictureFacts(
        header.format,
        header.mode,
        picture.width,
        picture.height,
        digest.digest(),
        int.from_bytes(gradient.tobytes()),
        thumbnail,
        highest_value(data) if header.format in _DEEP else None,
        lacks_data(data, picture),
    )


def similar_groups(facts: Mapping[str, PictureFacts]) -> list[list[str]]:
    """Groups of names whose pictures look the same.

    Two pictures do if their difference hashes differ in at most 6 of 64 bits and their thumbnails by at most
    4 of 255 on average. Pictures with almost no contrast look alike without being related, and are left out.
    Above 100,000 pictures only those with equal hashes are compared, as all pairs would take too long.
    """
    names = list(facts)
    if not names:
        return []
    thumbnails = np.frombuffer(b"".join(fact.thumbnail for fact in facts.values()), np.uint8)
    thumbnails = thumbnails.reshape(len(names), -1).astype(np.int16)
    hashes = np.array([fact.gradient for fact in facts.values()], np.uint64)
    kept = np.flatnonzero(thumbnails.std(axis=1) >= _MIN_CONTRAST)
    find = _near_pairs if len(kept) <= _MAX_EXHAUSTIVE else _equal_pairs
    leader = {index: index for index in kept.tolist()}
    for left, right in find(hashes, kept):
        alike = np.abs(thumbnails[left] - thumbnails[right]).mean(axis=1) <= _MAX_DIFFERENCE
        for one, other in zip(left[alike].tolist(), right[alike].tolist(), strict=True):
            leader[_root(leader, one)] = _root(leader, other)
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for index in leader:
        groups[_root(leader, index)].append(names[index])
    return [group for group in groups.values() if len(group) > 1]


def _near_pairs(hashes: np.ndarray, kept: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index pairs whose hashes differ in few bits, found by comparing each with all after it."""
    chosen = hashes[kept]
    for start in range(0, len(kept), _BLOCK):
        block = chosen[start : start + _BLOCK]
        distance = np.bitwise_count(block[:, None] ^ chosen[None, start:])
        rows, columns = np.nonzero(distance <= _MAX_BITS)
        later = columns > rows
        yield kept[start + rows[later]], kept[start + columns[later]]


def _equal_pairs(hashes: np.ndarray, kept: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Neighbours among the indices sorted by hash, where the hashes are equal."""
    ordered = kept[np.argsort(hashes[kept], kind="stable")]
    equal = hashes[ordered[:-1]] == hashes[ordered[1:]]
    yield ordered[:-1][equal], ordered[1:][equal]


def _root(leader: dict[int, int], index: int) -> int:
    while leader[index] != index:
        leader[index] = leader[leader[index]]  # halves the path for the next look-up
        index = leader[index]
    return index
