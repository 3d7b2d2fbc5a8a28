"""Files without an ending are known by their first bytes, and no more of them is read."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception.data.archives import open_archive
from inception.data.decode import sniff_format
from inception.data.folders import head_without_ending
from inception.data.formats import HAS_AVIF, HAS_HEIC, HEAD_BYTES, left_out_by_content
from inception.data.sources import open_dataset
from inception.data.stores import FolderStore, MemoryStore, Store
from inception.data.webdataset import find_shards, open_shard_images
from inception.errors import DataError
from inception.runtime.inputs import expand_inputs

NOISE = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8).tobytes()
KINDS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", *(["AVIF"] if HAS_AVIF else [])]
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
NOT_READ = {
    "HEIC": HEIC,
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n",
    "DICOM": bytes(128) + b"DICM",
    "Photoshop": b"8BPS\0\1",
    "video": b"\0\0\0\x18ftypqt  ",
    "NumPy array": b"\x93NUMPY\1\0",
    "PDF": b"%PDF-1.7",
}


def image_of(kind: str, number: int = 0) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def stored(kind: str, files: dict[str, bytes], folder: Path) -> Store:
    """The files in a store of this kind."""
    if kind == "memory":
        return MemoryStore(files, "memory")
    if kind == "folder":
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return FolderStore(folder)
    path = folder / "files"
    if kind.startswith("zip"):
        method = zipfile.ZIP_STORED if kind == "zip" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return open_archive(path)
    path = folder / "files.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return open_archive(path) if kind == "tar" else open_shard_images(folder, find_shards(folder))


@pytest.mark.parametrize("kind", ["memory", "folder", "zip", "zip deflated", "tar", "shards"])
def test_the_head_is_how_a_file_begins(kind, tmp_path):
    text = b"a long line that can be packed " * 9000
    files = {"noise.png": NOISE, "text.png": text, "short.png": b"abc", "empty.png": b""}
    store = stored(kind, files, tmp_path)
    for name in store.names():
        data = files[name.rpartition("/")[2]]
        assert store.read(name) == data
        for count in (1, 16, HEAD_BYTES, 5000, 10**6):
            assert store.head(name, count) == data[:count]
    with pytest.raises(DataError):
        store.head("missing", 4)


def test_only_the_head_of_a_file_without_an_ending_is_read(tmp_path, monkeypatch):
    files = {f"{label}/{number}": image_of("PNG", number) for label in "ab" for number in range(3)}
    store = stored("folder", files | {"a/README": b"P6 ", "a/notes.txt": b"P6 "}, tmp_path)
    asked = []
    head = FolderStore.head
    monkeypatch.setattr(FolderStore, "read", None)
    monkeypatch.setattr(
        FolderStore, "head", lambda self, name, count: asked.append((name, count)) or head(self, name, count)
    )
    assert len(open_dataset(tmp_path).samples) == 6
    assert asked == [(name, HEAD_BYTES) for name in sorted(files)]
    assert head_without_ending(store, "a/notes.txt") == b""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["{}", "1.2.840.{}"])
def test_every_format_is_known_without_an_ending(kind, name, tmp_path):
    files = {f"{label}/{name.format(n)}": image_of(kind, n) for label in "ab" for n in range(3)}
    stored("folder", files, tmp_path)
    dataset = open_dataset(tmp_path)
    assert len(dataset.samples) == 6
    assert dataset.strays == ()
    found = list(expand_inputs([str(tmp_path)], ()))
    assert len(found) == 6
    assert {opener().size for _, opener in found} == {(16, 16)}


@pytest.mark.parametrize("kind", NOT_READ)
def test_formats_that_are_not_read_are_counted_without_an_ending(kind, tmp_path):
    if kind == "HEIC" and HAS_HEIC:
        pytest.skip("pillow-heif is installed, so HEIC is read")
    files = {f"{label}/{n}": image_of("PNG", n) for label in "ab" for n in range(3)}
    stored("folder", files | {"a/9": NOT_READ[kind]}, tmp_path)
    [(reason, paths)] = open_dataset(tmp_path).left_out.items()
    assert (reason.startswith(f"{kind}, not read"), paths) == (True, ("a/9",))
    [wrong] = [opener for name, opener in expand_inputs([str(tmp_path)], ()) if name.endswith("a/9")]
    with pytest.raises(DataError, match=f"{kind}, not read"):
        wrong()


def test_text_is_no_image():
    for text in (b"path,label\n", b"", b"#!/bin/sh\n", b"{}", b"GIF is a format"):
        assert sniff_format(text) is None
        assert left_out_by_content(text) is None
