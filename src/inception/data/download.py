"""Fetching one file over HTTP so that a dropped connection costs time, never a wrong file."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from inception.errors import DownloadError
from inception.files import sync_directory

Progress = Callable[[int, int | None], None]
"""Called with the bytes there so far and the bytes expected (None while unknown)."""

_CHUNK_BYTES = 1 << 18
_ALGORITHMS = ("sha256", "sha1", "md5")
_SHORTEST_PREFIX = 8


def download(
    url: str,
    destination: Path,
    *,
    checksum: str | None,
    size: int | None = None,
    progress: Progress | None = None,
    attempts: int = 4,
    timeout: float = 30.0,
    first_wait: float = 1.0,
) -> Path:
    """Fetch `url` to `destination`, unless a file with the right checksum is there already.

    Bytes go to `<destination>.part`; a later attempt, or a later call, continues from there if the server
    can. The file takes its name only after its length and checksum are right; a wrong one is deleted.

    Args:
        url: http or https.
        destination: the file to make; its folder is made too.
        checksum: "sha256:<hex>", or "sha1:<hex>" or "md5:<hex>" where the publisher gives no better; also the
            first digits (at least 8) of one. None, where nothing is published: only the length is checked.
        size: expected bytes, if known; more are never written.
        progress: called after every chunk.
        attempts: tries in all, each after twice the wait of the one before.
        timeout: seconds without a byte after which an attempt fails.
        first_wait: seconds before the second attempt.

    Returns:
        `destination`.

    Raises:
        DownloadError: if the URL or checksum is malformed, or every attempt failed.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url} is neither http nor https, and nothing else is downloaded.")
    if checksum is not None:
        algorithm, _, expected = checksum.partition(":")
        if algorithm not in _ALGORITHMS or len(expected) < _SHORTEST_PREFIX:
            raise DownloadError(f"The checksum {checksum!r} must be sha256:<hex>, sha1:<hex> or md5:<hex>.")
        if destination.is_file() and matches(destination, checksum):
            return destination
    part = destination.with_name(f"{destination.name}.part")
    failure: Exception | None = None
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(attempts):
            if attempt:
                time.sleep(first_wait * 2 ** (attempt - 1))
            failure = _try(url, part, checksum, size, progress, timeout)
            if failure is None:
                part.replace(destination)
                sync_directory(destination.parent)
                return destination
            if isinstance(failure, _RefusedError):
                break
    except OSError as error:
        raise DownloadError(f"{destination} cannot be written: {error.strerror or error}.") from error
    raise DownloadError(
        f"{url} could not be downloaded ({failure}); try again, or put the file at {destination} yourself."
    ) from failure


def matches(path: Path, checksum: str) -> bool:
    """Whether a file has the checksum "sha256:<hex>", "sha1:<hex>" or "md5:<hex>", or one beginning so."""
    algorithm, _, expected = checksum.partition(":")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest().startswith(expected.lower())


class _IncompleteError(Exception):
    """An attempt ended early or wrong; another may do better."""


class _RefusedError(Exception):
    """The server said no; asking again would not help."""


def _try(
    url: str, part: Path, checksum: str | None, size: int | None, progress: Progress | None, timeout: float
) -> Exception | None:
    """One attempt to complete `part`; what went wrong, if it is the server's or the network's fault."""
    try:
        _fetch(url, part, size, progress, timeout)
        if checksum is not None:
            _verify(part, checksum)
    except (_IncompleteError, _RefusedError) as error:
        return error
    return None


def _fetch(url: str, part: Path, size: int | None, progress: Progress | None, timeout: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have == size:
        return
    response = _request(url, have, part, timeout)
    with response:
        have = _continues_at(response, have)
        length = response.headers.get("Content-Length", "")
        total = size if size is not None else have + int(length) if length.isdigit() else None
        with part.open("ab" if have else "wb") as stream:
            for chunk in _chunks(response):
                have += len(chunk)
                if total is not None and have > total:
                    break
                stream.write(chunk)
                if progress is not None:
                    progress(have, total)
            stream.flush()
            os.fsync(stream.fileno())
    if total is not None and have > total:
        part.unlink()
        raise _IncompleteError(f"the server sent more than the expected {total:,} bytes")
    if total is not None and have < total:
        raise _IncompleteError(f"the connection ended after {have:,} of {total:,} bytes")


def _request(url: str, have: int, part: Path, timeout: float) -> Any:
    """The server's response to a request for the bytes from `have` on."""
    request = urllib.request.Request(url, headers={"User-Agent": "inception", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
        elif error.code < 500 and error.code not in (408, 429):
            raise _RefusedError(f"the server answered {error.code} {error.reason}") from error
        raise _IncompleteError(f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _IncompleteError(str(error.reason)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _IncompleteError(str(error) or type(error).__name__) from error
    if urlsplit(response.url).scheme not in ("http", "https"):
        response.close()
        raise _RefusedError(f"the server points to {response.url}")
    return response


def _chunks(response: Any) -> Iterator[bytes]:
    """The body piece by piece; network errors, unlike those of the disk, are worth another attempt."""
    try:
        while chunk := response.read(_CHUNK_BYTES):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _IncompleteError(str(error) or type(error).__name__) from error


def _continues_at(response: Any, have: int) -> int:
    """Bytes already on disk that this response goes on from: `have`, or 0 if the server starts over."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    content_range = response.headers.get("Content-Range", "")
    if not content_range.startswith(f"bytes {have}-"):
        raise _IncompleteError(f"the server answered with the wrong part ({content_range})")
    return have


def _verify(part: Path, checksum: str) -> None:
    if not matches(part, checksum):
        part.unlink()  # nothing tells which of its bytes are wrong
        raise _IncompleteError(f"its content does not match {checksum}")
