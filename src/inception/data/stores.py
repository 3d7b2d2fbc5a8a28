"""Where the bytes of a data set's files are, behind one interface; folders and memory (archives apart).

Every store is thread-safe and picklable: a worker process opens what it needs by itself.
"""

import errno
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from inception.errors import DataError, ImageError

MAX_MEMBER_BYTES = 512 * 2**20
"""Largest file that is read whole; no image within the pixel limit needs more."""


class Store(Protocol):
    """Named files, whatever holds them. Names use `/` and are relative to the store."""

    @property
    def location(self) -> str:
        """Where the store is, for messages."""

    def names(self) -> list[str]:
        """Every file, sorted."""

    def empty_folders(self) -> list[str]:
        """Folders that hold no file at any depth, sorted, each ending in `/`."""

    def size(self, name: str) -> int:
        """Bytes of one file. Raises `DataError` if there is no such file."""

    def signature(self, name: str) -> str:
        """What is known of a file's content without reading it: its size, and its CRC where recorded."""

    def read(self, name: str) -> bytes:
        """One file's bytes. Raises `ImageError` if it cannot be read, `DataError` if it is not there."""

    def head(self, name: str, count: int) -> bytes:
        """The first `count` bytes of one file (fewer where it is shorter). Raises as `read`."""


def missing_file(name: str, location: str) -> DataError:
    """The error for a name that a store does not hold."""
    return DataError(f"{location} holds no file named {name!r}.")


def check_size(name: str, location: str, size: int) -> None:
    """Raise `ImageError` if a file is over `MAX_MEMBER_BYTES`."""
    if size > MAX_MEMBER_BYTES:
        raise ImageError(
            "too_large",
            f"{name} in {location} is {size:,} bytes, over the limit of {MAX_MEMBER_BYTES:,}; remove it.",
        )


def find_empty_folders(folders: set[str], files: Iterable[str]) -> list[str]:
    """Those of `folders` (without final `/`) below which no file is, sorted, each with a final `/`."""
    filled = {""}
    for name in files:
        folder = name.rpartition("/")[0]
        while folder not in filled:
            filled.add(folder)
            folder = folder.rpartition("/")[0]
    return sorted(f"{folder}/" for folder in folders - filled)


class FolderStore:
    """Files below a folder; symbolic links are followed, except a link to a folder that contains it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sizes: dict[str, int] | None = None
        self._folders: set[str] = set()
        self._irregular: list[str] = []

    @property
    def location(self) -> str:
        """The folder's path."""
        return str(self._root)

    def names(self) -> list[str]:
        """Every regular file, sorted; the first call walks the folder."""
        return sorted(self._walked())

    def empty_folders(self) -> list[str]:
        """Folders that hold no file at any depth, sorted, each ending in `/`."""
        return find_empty_folders(self._folders, self._walked())

    def irregular(self) -> list[str]:
        """Names that lead to no regular file, sorted: links to nothing, pipes, sockets, devices."""
        self._walked()
        return sorted(self._irregular)

    def size(self, name: str) -> int:
        """Bytes of one file; `name` may also be absolute or lead upwards, as a CSV's paths do."""
        if self._sizes is not None and name in self._sizes:
            return self._sizes[name]
        path = self._root / name
        if not path.is_file():
            raise missing_file(name, self.location)
        return path.stat().st_size

    def signature(self, name: str) -> str:
        """The file's size."""
        return str(self.size(name))

    def read(self, name: str) -> bytes:
        """One file's bytes."""
        return self._read(name, None)

    def head(self, name: str, count: int) -> bytes:
        """The first `count` bytes of one file."""
        return self._read(name, count)

    def _read(self, name: str, count: int | None) -> bytes:
        path = os.path.join(self._root, name)  # noqa: PTH118 - a Path takes longer than opening the file
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123
                if count is not None:
                    return file.read(count)
                check_size(name, self.location, os.fstat(file.fileno()).st_size)
                return file.readall()
        except FileNotFoundError:
            raise missing_file(name, self.location) from None
        except OSError as error:
            raise ImageError("corrupt", f"{path} cannot be read: {error.strerror}.") from error

    def __getstate__(self) -> dict[str, Any]:
        # The walk's result is only needed while a data set is being opened.
        return {"_root": self._root, "_sizes": None, "_folders": set(), "_irregular": []}

    def _walked(self) -> dict[str, int]:
        if self._sizes is None:
            sizes: dict[str, int] = {}
            self._walk(str(self._root), "", sizes, frozenset())
            self._sizes = sizes
        return self._sizes

    def _walk(self, folder: str, prefix: str, sizes: dict[str, int], above: frozenset[str]) -> None:
        real = os.path.realpath(folder)
        if real in above:
            return
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if _is_loop(entry):
                        continue
                    if entry.is_dir():
                        self._folders.add(name)
                        self._walk(entry.path, f"{name}/", sizes, above | {real})
                    elif entry.is_file():
                        sizes[name] = entry.stat().st_size
                    else:
                        self._irregular.append(name)
        except OSError as error:
            raise DataError(f"The folder {folder} cannot be listed: {error.strerror}.") from error


def _is_loop(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a link that leads back to itself."""
    try:
        entry.is_dir()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


class MemoryStore:
    """Files held in memory; made for small embedded sets."""

    def __init__(self, files: dict[str, bytes], location: str) -> None:
        self._files = files
        self._location = location

    @property
    def location(self) -> str:
        """Where the files came from."""
        return self._location

    def names(self) -> list[str]:
        """Every file, sorted."""
        return sorted(self._files)

    def empty_folders(self) -> list[str]:
        """Always empty: memory has no folders."""
        return []

    def size(self, name: str) -> int:
        """Bytes of one file."""
        return len(self.read(name))

    def signature(self, name: str) -> str:
        """Size and CRC-32."""
        data = self.read(name)
        return f"{len(data)}:{zlib.crc32(data):08x}"

    def read(self, name: str) -> bytes:
        """One file's bytes."""
        try:
            return self._files[name]
        except KeyError:
            raise missing_file(name, self._location) from None

    def head(self, name: str, count: int) -> bytes:
        """The first `count` bytes of one file."""
        return self.read(name)[:count]
