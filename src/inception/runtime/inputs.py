"""From what a user names (files, folders, archives, a list) to images that can be opened one by one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from inception.data.archives import open_archive
from inception.data.decode import is_visible_image, sniff_format
from inception.data.folders import head_without_ending
from inception.data.formats import left_out_by_content, left_out_reason
from inception.data.parquet import ParquetStore
from inception.data.stores import FolderStore, Store
from inception.data.webdataset import find_shards, open_shard_images
from inception.errors import DataError, ImageError
from inception.runtime.answering import decode_warned, read_file, unreadable

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
PARQUET_SUFFIX = ".parquet"
Item = tuple[str, Callable[..., Image.Image]]


class Found(Protocol):
    """An input: called it is opened, and its file's bytes can be had. It can be sent to another process."""

    def __call__(self, bits: int = 0) -> Image.Image:
        """The RGB image; `bits` as for `decode_image`. Raises DataError."""

    def read(self) -> bytes:
        """The bytes of its file. Raises DataError."""


@dataclass(frozen=True, slots=True)
class _FileImage:
    """An image in a file."""

    path: str

    def __call__(self, bits: int = 0) -> Image.Image:
        return decode_warned(self.read(), bits, self.path)

    def read(self) -> bytes:
        return read_file(self.path)


@dataclass(frozen=True, slots=True)
class _MemberImage:
    """An image in a store."""

    store: Store
    name: str

    def __call__(self, bits: int = 0) -> Image.Image:
        return decode_warned(self.read(), bits, self.name)

    def read(self) -> bytes:
        return self.store.read(self.name)


@dataclass(frozen=True, slots=True)
class _NoImage:
    """Fails with what is wrong with an input."""

    message: str

    def __call__(self, bits: int = 0) -> Image.Image:
        raise ImageError("empty", self.message)

    def read(self) -> bytes:
        raise ImageError("empty", self.message)


def expand_inputs(paths: Iterable[str], listing: Iterable[str]) -> Iterator[tuple[str, Found]]:
    """(name, the image to open or read) for every image, lazily and in order.

    A folder, archive or folder of tar shards gives its image files (by extension, hidden ones left out) as
    `folder/name`, a Parquet file its rows; `-` gives the paths in `listing`, one a line. What does not exist
    or may not be read gives an item whose opening fails with a clear ImageError, so that one wrong name does
    not stop the rest.
    """
    for path in paths:
        if path == "-":
            lines = (line.rstrip("\r\n") for line in listing)
            yield from expand_inputs((line for line in lines if line and line != "-"), ())
        else:
            yield from _expand(path)


def _expand(path: str) -> Iterator[tuple[str, Found]]:
    try:
        store = _open_store(path)
        names = [] if store is None else _image_names(store)
    except DataError as error:
        yield path, _NoImage(str(error))
        return
    except (OSError, ValueError) as error:
        yield path, _NoImage(str(unreadable(path, error)))
        return
    if store is None:
        yield path, _FileImage(path)
        return
    if not names:
        yield path, _NoImage(f"{path} holds no images")
    for name in names:
        if reason := _reason(store, name):
            yield f"{path.rstrip('/')}/{name}", _NoImage(f"{name}: {reason}")
            continue
        yield f"{path.rstrip('/')}/{name}", _MemberImage(store, name)


def _open_store(path: str) -> Store | None:
    """What holds the images of a folder, archive or Parquet file; None for any other path."""
    place, lower = Path(path), path.lower()
    if place.is_dir():
        shards = find_shards(place)
        return open_shard_images(place, shards) if shards else FolderStore(place)
    if lower.endswith(PARQUET_SUFFIX) and place.is_file():
        return ParquetStore(place)
    return open_archive(place) if lower.endswith(ARCHIVE_SUFFIXES) and place.is_file() else None


def _image_names(store: Store) -> list[str]:
    names = store.names()
    if isinstance(store, ParquetStore):
        return names
    return [
        name for name in names if is_visible_image(name) or (_is_visible(name) and _is_meant(store, name))
    ]


def _is_meant(store: Store, name: str) -> bool:
    """Whether a file is an image of a format that is not read, or one without an ending."""
    return bool(_reason(store, name) or sniff_format(head_without_ending(store, name)))


def _reason(store: Store, name: str) -> str | None:
    """Why a file that is meant as an image is not read."""
    if isinstance(store, ParquetStore):  # a row's name is a number, and nothing is known before it is read
        return None
    return left_out_reason(name) or left_out_by_content(head_without_ending(store, name))


def _is_visible(name: str) -> bool:
    return not any(part.startswith(".") for part in name.split("/"))
