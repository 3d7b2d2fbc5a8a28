"""From what a user names (files, folders, archives, a list) to images that can be opened one by one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from inception.data.archives import open_archive
from inception.data.decode import EXTENSIONS, decode_image
from inception.data.parquet import ParquetStore
from inception.data.stores import FolderStore, Store
from inception.data.webdataset import find_shards, open_shard_images
from inception.errors import DataError, ImageError
from inception.runtime.answering import open_image

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
PARQUET_SUFFIX = ".parquet"
Item = tuple[str, Callable[[], Image.Image]]


@dataclass(frozen=True, slots=True)
class _FileImage:
    """Opens the image of a file. Like the other two it can be sent to another process."""

    path: str

    def __call__(self) -> Image.Image:
        return open_image(self.path)


@dataclass(frozen=True, slots=True)
class _MemberImage:
    """Opens an image in a store."""

    store: Store
    name: str

    def __call__(self) -> Image.Image:
        return decode_image(self.store.read(self.name), name=self.name)


@dataclass(frozen=True, slots=True)
class _NoImage:
    """Fails with what is wrong with an input."""

    message: str

    def __call__(self) -> Image.Image:
        raise ImageError("empty", self.message)


def expand_inputs(paths: Iterable[str], listing: Iterable[str]) -> Iterator[Item]:
    """(name, function that opens the image) for every image, lazily and in order.

    A folder, archive or folder of tar shards gives its image files (by extension, hidden ones left out) as
    `folder/name`, a Parquet file its rows; `-` gives the paths in `listing`, one a line. What does not exist
    gives an item whose opening fails with a clear ImageError, so that one wrong name does not stop the rest.
    """
    for path in paths:
        if path == "-":
            lines = (line.rstrip("\r\n") for line in listing)
            yield from expand_inputs((line for line in lines if line and line != "-"), ())
        elif Path(path).is_dir():
            yield from _folder(path)
        elif path.lower().endswith((*ARCHIVE_SUFFIXES, PARQUET_SUFFIX)) and Path(path).is_file():
            yield from _archive(path)
        else:
            yield path, _FileImage(path)


def _folder(path: str) -> Iterator[Item]:
    try:
        shards = find_shards(Path(path))
        store: Store = open_shard_images(Path(path), shards) if shards else FolderStore(Path(path))
    except DataError as error:
        yield path, _NoImage(str(error))
        return
    yield from _members(store, path)


def _archive(path: str) -> Iterator[Item]:
    parquet = path.lower().endswith(PARQUET_SUFFIX)
    try:
        store: Store = ParquetStore(Path(path)) if parquet else open_archive(Path(path))
    except DataError as error:
        yield path, _NoImage(str(error))
        return
    yield from _members(store, path, every=parquet)


def _members(store: Store, path: str, every: bool = False) -> Iterator[Item]:
    try:
        listed = store.names()
    except DataError as error:
        yield path, _NoImage(str(error))
        return
    names = listed if every else [name for name in listed if _is_visible_image(name)]
    if not names:
        yield path, _NoImage(f"{path} holds no images")
    for name in names:
        yield f"{path.rstrip('/')}/{name}", _MemberImage(store, name)


def _is_visible_image(name: str) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return Path(name).suffix.lower() in EXTENSIONS and not hidden
