"""Zip and tar archives read in place, without trusting them.

Nothing is ever unpacked by name. A member whose name or link leaves the archive, an encrypted member, and
one that claims or yields more than `MAX_MEMBER_BYTES` are refused with an error that names it.
"""

import bz2
import gzip
import lzma
import os
import posixpath
import re
import struct
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple

from inception.data.stores import check_size, find_empty_folders, missing_file
from inception.errors import DataError, ImageError

# A compressed tar may expand to 1 GiB, or to 100 times its size if that is more; images never do.
_FREE_EXPANSION_BYTES = 2**30
_MAX_EXPANSION = 100
_CHUNK_BYTES = 1 << 20
_OPENERS: dict[bytes, type[gzip.GzipFile] | type[bz2.BZ2File] | type[lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_MAX_LINKS = 40  # a longer chain of links is a loop
_UTF8_NAME = 0x800
_ENCRYPTED = 0x1
_LOCAL_HEADER_BYTES = 30
_PACKED_BYTES = 4096  # the table of codes that precedes the data of a deflated member


def open_archive(path: Path) -> "ZipStore | TarStore":
    """A zip or a tar (plain, gzip, bzip2 or xz), told apart by content.

    Raises:
        DataError: if `path` is neither, is damaged, or has a member that leaves the archive.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if start in (b"PK\x03\x04", b"PK\x05\x06") or path.suffix.lower() == ".zip":
        return ZipStore(path)
    return TarStore(path)


class _Member(NamedTuple):
    offset: int
    size: int
    packed: int
    method: int = zipfile.ZIP_STORED
    crc: int | None = None
    encrypted: bool = False


_DANGLING = _Member(0, 0, -1)


class RandomAccessFile:
    """A read-only file that threads, forked and spawned processes can read at any offset."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[bytes] | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["RandomAccessFile"], tuple[Path]]:
        return (RandomAccessFile, (self._path,))

    def read_at(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`, fewer at the end of the file. Raises `OSError`."""
        if not hasattr(os, "pread"):  # Windows, where no process is forked either
            with self._lock:
                stream = self._opened()
                stream.seek(offset)
                return stream.read(count)
        # pread leaves the shared file position alone, so it needs no lock, even across a fork.
        descriptor = self._opened().fileno()
        pieces = []
        while count > 0 and (piece := os.pread(descriptor, count, offset)):
            pieces.append(piece)
            offset += len(piece)
            count -= len(piece)
        return b"".join(pieces)

    def _opened(self) -> IO[bytes]:
        if self._stream is None:
            stream = self._path.open("rb")
            weakref.finalize(self, stream.close)
            self._stream = stream
        return self._stream


class _ArchiveStore:
    """What zips and tars share: an index from a member's name to where its bytes are."""

    def __init__(self, path: Path, data: Path, members: dict[str, _Member], folders: set[str]) -> None:
        self._path = path
        self._file = RandomAccessFile(data)
        self._members = members
        self._folders = folders

    @property
    def location(self) -> str:
        """The archive's path."""
        return str(self._path)

    def names(self) -> list[str]:
        """Every file member, sorted."""
        return sorted(self._members)

    def empty_folders(self) -> list[str]:
        """Folders that hold no file at any depth, sorted, each ending in `/`."""
        return find_empty_folders(self._folders, self._members)

    def size(self, name: str) -> int:
        """Declared bytes of one member."""
        return self._member(name).size

    def signature(self, name: str) -> str:
        """Declared size, and the CRC-32 where the archive records it."""
        member = self._member(name)
        return str(member.size) if member.crc is None else f"{member.size}:{member.crc:08x}"

    def _member(self, name: str) -> _Member:
        try:
            return self._members[name]
        except KeyError:
            raise missing_file(name, self.location) from None

    def _read_at(self, name: str, offset: int, count: int) -> bytes:
        try:
            data = self._file.read_at(offset, count)
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror}.") from error
        if len(data) < count:
            raise ImageError("truncated", f"{self._path} ends within {name}; copy the archive again.")
        return data


class ZipStore(_ArchiveStore):
    """The members of a zip file."""

    def __init__(self, path: Path) -> None:
        members: dict[str, _Member] = {}
        folders = set()
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error) as error:
            raise DataError(f"{path} is not a complete zip archive ({error}); copy it again.") from error
        for entry in entries:
            name = _safe_name(_decoded_name(entry), str(path))
            if entry.is_dir():
                folders.add(name)
            else:
                members[name] = _Member(
                    entry.header_offset,
                    entry.file_size,
                    entry.compress_size,
                    entry.compress_type,
                    entry.CRC,
                    bool(entry.flag_bits & _ENCRYPTED),
                )
        super().__init__(path, path, members, folders)

    def read(self, name: str) -> bytes:
        """One member's bytes, their number and CRC checked."""
        member = self._member(name)
        # One byte over the declared size is enough to expose a member that lies about it.
        data = self._unpacked(name, member, self._packed(name, member, member.packed), member.size + 1)
        if len(data) != member.size or zlib.crc32(data) != member.crc:
            raise ImageError(
                "corrupt", f"{name} in {self._path} is not what its checksum says; copy the archive again."
            )
        return data

    def head(self, name: str, count: int) -> bytes:
        """The first `count` bytes of one member, compared with nothing."""
        member = self._member(name)
        packed = self._packed(name, member, min(member.packed, count + _PACKED_BYTES))
        return self._unpacked(name, member, packed, count)[:count]

    def _packed(self, name: str, member: _Member, count: int) -> bytes:
        """The first `count` bytes of a member as they are stored."""
        if member.encrypted:
            raise ImageError(
                "corrupt", f"{name} in {self._path} is encrypted; make the zip again without a password."
            )
        check_size(name, self.location, max(member.size, member.packed))
        header = self._read_at(name, member.offset, _LOCAL_HEADER_BYTES)
        if header[:4] != b"PK\x03\x04":
            raise ImageError("corrupt", f"{self._path} is damaged at {name}; copy the archive again.")
        name_bytes, extra_bytes = struct.unpack_from("<HH", header, 26)
        start = member.offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
        return self._read_at(name, start, count)

    def _unpacked(self, name: str, member: _Member, packed: bytes, most: int) -> bytes:
        if member.method == zipfile.ZIP_STORED:
            return packed
        if member.method != zipfile.ZIP_DEFLATED:
            raise ImageError(
                "corrupt",
                f"{name} in {self._path} is compressed with zip method {member.method}; "
                "make the zip again with ordinary (deflate) compression.",
            )
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
        except zlib.error as error:
            raise ImageError("corrupt", f"{name} in {self._path} is damaged ({error}).") from error


class TarStore(_ArchiveStore):
    """The members of a tar file.

    A compressed tar has no random access: it is decompressed once to a temporary file, which lives as long
    as the store that made it (a copy in a worker process reads the same file).
    """

    def __init__(self, path: Path) -> None:
        plain = _decompressed(path)
        # Registered first: an index that cannot be built must not leave the temporary file behind.
        weakref.finalize(self, _remove_spool, plain, os.getpid())
        try:
            members, folders = _tar_index(plain or path, path)
        except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
            raise DataError(
                f"{path} is not a complete zip or tar archive ({error}); give a folder, zip, tar or CSV file."
            ) from error
        super().__init__(path, plain or path, members, folders)

    def read(self, name: str) -> bytes:
        """One member's bytes."""
        size = self.size(name)
        check_size(name, self.location, size)
        return self.head(name, size)

    def head(self, name: str, count: int) -> bytes:
        """The first `count` bytes of one member."""
        member = self._member(name)
        if member.packed < 0:
            raise ImageError(
                "corrupt", f"{name} in {self._path} is a link to what the archive does not hold."
            )
        return self._read_at(name, member.offset, min(count, member.size))


def tar_extents(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and size of every file in a plain tar, in its order. Raises `DataError` as `open_archive`."""
    try:
        members, _ = _tar_index(path, path)
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is not a complete tar ({error}); copy it again.") from error
    return {name: (member.offset, member.size) for name, member in members.items() if member.packed >= 0}


def _decoded_name(entry: zipfile.ZipInfo) -> str:
    # Several tools write UTF-8 names without the flag that says so; zipfile then reads them as cp437.
    if entry.flag_bits & _UTF8_NAME or entry.filename.isascii():
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.filename


def _safe_name(name: str, location: str) -> str:
    """A member's normal name. Raises `DataError` for one that leaves the archive."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise DataError(f"{location} has a member {name!r} that points outside the archive; do not trust it.")
    return "/".join(part for part in parts if part not in ("", "."))


def _link_target(entry: tarfile.TarInfo, name: str, path: Path) -> str:
    # A hard link names a member from the root of the archive, a symbolic link starts at its own folder.
    folder = posixpath.dirname(name) if entry.issym() else ""
    target = posixpath.normpath(posixpath.join(folder, entry.linkname))
    if target.startswith(("/", "../")) or target == "..":
        raise DataError(
            f"{path} has a link {name!r} to {entry.linkname!r}, outside the archive; do not trust it."
        )
    return target


def _tar_index(data: Path, path: Path) -> tuple[dict[str, _Member], set[str]]:
    """Members and folders of the plain tar `data`; errors name `path`, which it came from."""
    members: dict[str, _Member] = {}
    links: dict[str, str] = {}
    folders = set()
    with tarfile.open(data, "r:") as archive:
        for entry in archive:
            name = _safe_name(entry.name, str(path))
            if entry.isdir():
                folders.add(name)
            elif entry.isreg() and not entry.issparse():
                members[name] = _Member(entry.offset_data, entry.size, entry.size)
            elif entry.issym() or entry.islnk():
                links[name] = _link_target(entry, name, path)
    for name, first in links.items():
        target = first
        for _ in range(_MAX_LINKS):
            target = links.get(target, target)
        members[name] = members.get(target, _DANGLING)
    return members, folders


def _decompressed(path: Path) -> Path | None:
    """A temporary plain copy of a compressed tar, or None if `path` is not compressed."""
    with path.open("rb") as stream:
        start = stream.read(6)
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
    if opener is None:
        return None
    limit = max(_FREE_EXPANSION_BYTES, _MAX_EXPANSION * path.stat().st_size)
    with tempfile.NamedTemporaryFile(prefix="inception-", suffix=".tar", delete=False) as spool:
        plain = Path(spool.name)
        try:
            with opener(path) as packed:
                while spool.tell() <= limit and (chunk := packed.read(_CHUNK_BYTES)):
                    spool.write(chunk)
            expanded = spool.tell()
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            plain.unlink()
            raise DataError(f"{path} cannot be decompressed ({error}); copy it again.") from error
    if expanded > limit:
        plain.unlink()
        raise DataError(f"{path} expands to more than {limit:,} bytes; do not trust it.")
    return plain


def _remove_spool(plain: Path | None, owner: int) -> None:
    # A forked worker inherits the finalizer but does not own the file.
    if plain is not None and os.getpid() == owner:
        plain.unlink(missing_ok=True)
