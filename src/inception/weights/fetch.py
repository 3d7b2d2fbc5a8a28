"""Published weights fetched into the cache, and made into bundles."""

import os
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from inception.data.download import Progress, download, matches
from inception.errors import DownloadError, UsageError
from inception.files import atomic_path, cache_folder, sha256_file
from inception.weights.bundle import Bundle
from inception.weights.catalogue import Entry, expected_preprocess, find_entry
from inception.weights.importer import import_weights

MEMBER_LIMIT_BYTES = 2 << 30
"""The largest file that is taken out of an archive (2 GB)."""
NOT_VERIFIED = "not verified: none is published"
_CHUNK_BYTES = 1 << 20


def weights_folder() -> Path:
    """Where fetched weights are kept."""
    return cache_folder("weights")


def fetch(
    name: str,
    *,
    mirror: str | None = None,
    allow_unverified: bool = False,
    offline: bool = False,
    progress: Progress | None = None,
) -> Path:
    """The file of weights called `name` in the cache, downloaded there if it is not.

    Args:
        name: an entry of the catalogue.
        mirror: fetch `<mirror>/<file name>` instead of the entry's URL; default
            `$INCEPTION_WEIGHTS_URL_PREFIX`.
        allow_unverified: fetch also where the publisher gives no checksum.
        offline: take it from the cache or fail.
        progress: called after every chunk with the bytes there and the bytes expected.

    Raises UsageError for an unknown name or an entry without checksum, DownloadError when it cannot be had.
    """
    entry = find_entry(name)
    destination = weights_folder() / entry.name / entry.file
    if not _is_there(destination, entry):
        _refuse(entry, destination, allow_unverified, offline)
        prefix = mirror or os.environ.get("INCEPTION_WEIGHTS_URL_PREFIX")
        url = f"{prefix.rstrip('/')}/{entry.file}" if prefix else entry.url
        download(url, destination, checksum=entry.checksum, progress=progress)
    if entry.member is None:
        return destination
    if entry.labels_member is not None:
        labels = destination.with_name(f"{Path(entry.member).stem}.labels.txt")
        _unpack(destination, entry.labels_member, labels)
    return _unpack(destination, entry.member, destination.with_name(entry.member))


def _is_there(path: Path, entry: Entry) -> bool:
    return path.is_file() and (entry.checksum is None or matches(path, entry.checksum))


def _refuse(entry: Entry, destination: Path, allow_unverified: bool, offline: bool) -> None:
    if offline:
        raise DownloadError(
            f"{entry.name} is not in the cache: run `inception weights get {entry.name}`, or put "
            f"{entry.file} into {destination.parent}"
        )
    if entry.checksum is None and not allow_unverified:
        raise UsageError(
            f"nobody publishes a checksum of {entry.name} ({entry.url}): allow it with --allow-unverified, "
            f"or put the file into {destination.parent} yourself"
        )


def _unpack(archive: Path, member: str, target: Path) -> Path:
    """Take the file called `member`, in whatever folder, out of a `.zip` or `.tar.gz`."""
    if target.is_file() and target.stat().st_mtime >= archive.stat().st_mtime:
        return target
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as pack:
                info = next((i for i in pack.infolist() if PurePosixPath(i.filename).name == member), None)
                if info is not None:
                    with pack.open(info) as stream:
                        return _copy(stream, target)
        else:
            with tarfile.open(archive) as tar:
                for item in tar:
                    if item.isfile() and PurePosixPath(item.name).name == member:
                        opened = tar.extractfile(item)
                        if opened is not None:
                            return _copy(opened, target)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        ValueError,
    ) as error:
        raise DownloadError(f"{archive} is damaged ({error}); remove it and fetch it again") from error
    except OSError as error:  # zlib's and the disk's
        raise DownloadError(f"{member} cannot be taken out of {archive}: {error}") from error
    raise DownloadError(f"{archive} does not hold {member}; remove it and fetch it again")


def _copy(stream: IO[bytes], target: Path) -> Path:
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        written = 0
        while chunk := stream.read(_CHUNK_BYTES):
            written += len(chunk)
            if written > MEMBER_LIMIT_BYTES:
                raise DownloadError(f"{target.name} has more than {MEMBER_LIMIT_BYTES} bytes")
            file.write(chunk)
    return target


def published_bundle(
    name: str,
    *,
    mirror: str | None = None,
    allow_unverified: bool = False,
    offline: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """The published weights called `name` as a bundle; arguments as in `fetch`.

    Its provenance says where they came from, what vouches for them, and what they are licensed under.
    """
    entry = find_entry(name)
    path = fetch(name, mirror=mirror, allow_unverified=allow_unverified, offline=offline, progress=progress)
    bundle, _ = import_weights(path, entry.network, tool=entry.tool, preprocess=expected_preprocess(entry))
    archive = weights_folder() / entry.name / entry.file
    bundle.provenance.update(
        catalogue=entry.name,
        url=entry.url,
        downloaded_sha256=sha256_file(archive),
        checksum=entry.checksum or NOT_VERIFIED,
        license=entry.license,
    )
    return bundle
