"""Writing files so that a crash at any instant leaves the old content or the new, never half."""

import errno
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from inception.errors import UsageError, WriteError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

_CHUNK_BYTES = 1 << 20


def parse_json(data: bytes, max_values: int, finite: bool = False) -> Any:
    """The value that JSON text stands for, where the text is not trusted.

    Raises ValueError when it may hold more than `max_values` values: parsed, `[],[],[]…` takes forty times
    the memory of the text. With `finite` also for NaN and numbers beyond the range of a float.
    """
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > max_values:
        raise ValueError(f"the JSON holds more than {max_values} values")
    if finite:
        return json.loads(data, parse_float=_finite, parse_constant=_finite)
    return json.loads(data)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.20} is not a finite number")
    return number


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """`path` open for reading, where others may have put there what they like.

    Raises OSError, and ValueError for what is no file: a pipe would never end, opening a device may do
    anything. The file is looked at again once it is open, since it may have been replaced.
    """
    _require_regular(path.stat(), path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as stream:
        _require_regular(os.fstat(stream.fileno()), path)
        yield stream


def _require_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(found.st_mode), "a device")
        raise ValueError(f"{path.name} is {kind}, not a file")


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes; never more than one byte beyond is read.

    Raises OSError, and ValueError for what is no file, or larger.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        # What is read is allocated at once: no more than the file has. Some have no size (/proc).
        most = min(max(size, _CHUNK_BYTES), limit)
        data = stream.read(most + 1) if size <= limit else b""
    if max(size, len(data)) > limit:
        raise ValueError(f"{path.name} has {max(size, len(data)):,} bytes, more than {limit:,}")
    if len(data) > most:
        raise ValueError(f"{path.name} grew while it was read")
    return data


def read_at_most(path: Path, limit: int) -> bytes:
    """The content of what the user names, which may be a pipe, up to `limit` bytes.

    Raises OSError, and ValueError when there is more.
    """
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return data


def cache_folder(name: str) -> Path:
    """A folder for what can be made or fetched again: in `$INCEPTION_CACHE`, else in `~/.cache/inception`."""
    root = os.environ.get("INCEPTION_CACHE") or "~/.cache/inception"
    return Path(root).expanduser() / name


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sync_directory(path: Path) -> None:
    """Force a folder's entries to disk, so that a rename in it survives a power cut (POSIX only)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


@contextmanager
def _synced_folder(folder: Path) -> Iterator[None]:
    """Make `folder`, and sync its entries after the block.

    It is opened before the block: running out of file descriptors is noticed while nothing has changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Turn the system's errors into `WriteError`s that name `path`."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        if error.errno is None:  # not the system's: a library's own error that happens to be an OSError
            raise
        raise WriteError(path, error) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is synced and takes `path`'s place.

    On an exception the temporary file is removed and `path` is as it was. Raises `WriteError`.
    """
    with _reporting(path), _synced_folder(path.parent):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp makes the file private; give it the mode an ordinary new file would have.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            _sync_file(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def lies_inside(path: Path, folder: Path) -> bool:
    """Whether `path`, which need not exist, is `folder` or below it; False where that is no folder."""
    return folder.is_dir() and path.resolve().is_relative_to(folder.resolve())


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing. Raises `WriteError`."""
    with _reporting(path):
        path.mkdir(parents=True, exist_ok=True)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically and durably."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically and durably; file names in it that are no text stay so."""
    atomic_write_bytes(path, text.encode(errors="surrogateescape"))


def previous_directory(path: Path) -> Path:
    """Where `atomic_directory` keeps the old folder while the new one takes its place: `.{name}.old`."""
    return path.with_name(f".{path.name}.old")


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`; on success it takes `path`'s place.

    A folder already at `path` is moved aside and removed only after the new one is in place; if the
    process dies between the two renames, the old content is at `previous_directory(path)`.
    """
    old = previous_directory(path)
    with _reporting(path), _synced_folder(path.parent):
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o755)
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync_file(file)
            sync_directory(temporary)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                path.rename(old)
            try:
                temporary.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Remove what a killed writer of `path` left beside it; a folder that was moved aside is put back."""
    if path.parent.is_dir():
        for entry in path.parent.iterdir():
            if entry.name.startswith(f".{path.name}.") and entry.name.endswith(".tmp"):
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)
    old = previous_directory(path)
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock file `path` during the block; gives False when another process has it.

    The system releases the lock of a process that dies. Where it has no such locks, always True.
    """
    if fcntl is None:
        yield True
        return
    with _reporting(path):
        stream = path.open("w")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # A file system without locks must not keep anybody from training.
            yield error.errno not in (errno.EAGAIN, errno.EACCES)
            return
        yield True


@contextmanager
def held(folder: Path, refusal: str) -> Iterator[None]:
    """Keep other processes out of `folder` during the block.

    Raises UsageError when one is in it, beginning with `refusal` ("another process is training in").
    """
    with locked(folder / ".lock") as free:
        if not free:
            raise UsageError(f"{refusal} {folder}: wait for it or stop it")
        yield
