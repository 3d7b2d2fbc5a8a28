"""From what a user names (files, folders, archives, a list) to images that can be opened one by one."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from PIL import Image

from inception.data.archives import open_archive
from inception.data.decode import EXTENSIONS, decode_image
from inception.data.stores import FolderStore, Store
from inception.errors import DataError, ImageError
from inception.runtime.answering import open_image

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
Item = tuple[str, Callable[[], Image.Image]]


def expand_inputs(paths: Iterable[str], listing: Iterable[str]) -> Iterator[Item]:
    """(name, function that opens the image) for every image, lazily and in order.

    A folder or archive gives its image files (by extension, hidden ones left out) as `folder/name`; `-` gives
    the paths in `listing`, one a line. What does not exist gives an item whose opening fails with a clear
    ImageError, so that one wrong name does not stop the rest.
    """
    for path in paths:
        if path == "-":
            lines = (line.rstrip("\r\n") for line in listing)
            yield from expand_inputs((line for line in lines if line and line != "-"), ())
        elif Path(path).is_dir():
            yield from _members(FolderStore(Path(path)), path)
        elif path.lower().endswith(ARCHIVE_SUFFIXES) and Path(path).is_file():
            yield from _archive(path)
        else:
            yield path, _file_opener(path)


def _archive(path: str) -> Iterator[Item]:
    try:
        store = open_archive(Path(path))
    except DataError as error:
        yield path, _failing(str(error))
        return
    yield from _members(store, path)


def _members(store: Store, path: str) -> Iterator[Item]:
    try:
        listed = store.names()
    except DataError as error:
        yield path, _failing(str(error))
        return
    names = [name for name in listed if Path(name).suffix.lower() in EXTENSIONS]
    names = [
        name for name in names if not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    ]
    if not names:
        yield path, _failing(f"{path} holds no images")
    for name in names:
        yield f"{path.rstrip('/')}/{name}", _member_opener(store, name)


def _file_opener(path: str) -> Callable[[], Image.Image]:
    return lambda: open_image(path)


def _member_opener(store: Store, name: str) -> Callable[[], Image.Image]:
    return lambda: decode_image(store.read(name), name=name)


def _failing(message: str) -> Callable[[], Image.Image]:
    def fail() -> Image.Image:
        raise ImageError("empty", message)

    return fail
