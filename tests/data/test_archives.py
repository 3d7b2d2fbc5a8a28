"""Zip and tar files: honest ones read like folders, hostile ones are refused by name."""

import io
import multiprocessing
import os
import pickle
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception.data import archives, stores
from inception.data.archives import TarStore, ZipStore, open_archive
from inception.errors import DataError, ImageError

FILES = {
    "cats/1.png": b"one" * 500,
    "cats/é 漢.png": b"two",
    "empty.bin": b"",
    "dogs/big.bin": os.urandom(3 << 20),
}
TAR_MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(
    path: Path, files: dict[str, bytes], mode: str = "w", extra: tuple[tarfile.TarInfo, ...] = ()
) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for entry in extra:
            archive.addfile(entry)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def image_error(store: ZipStore | TarStore, name: str) -> ImageError:
    with pytest.raises(ImageError) as caught:
        store.read(name)
    assert name in str(caught.value)
    return caught.value


@pytest.fixture(params=[".zip", "stored.zip", *TAR_MODES])
def store(request, tmp_path) -> ZipStore | TarStore:
    path = tmp_path / f"data{request.param}"
    if request.param.endswith(".zip"):
        write_zip(path, FILES, zipfile.ZIP_STORED if "stored" in request.param else zipfile.ZIP_DEFLATED)
    else:
        write_tar(path, FILES, TAR_MODES[request.param])
    return open_archive(path)


def test_every_member_reads_back(store):
    assert store.names() == sorted(FILES)
    assert {name: store.read(name) for name in store.names()} == FILES
    assert {name: store.size(name) for name in store.names()} == {
        name: len(data) for name, data in FILES.items()
    }
    with pytest.raises(DataError, match="nothing"):
        store.read("nothing")


def test_many_threads_read_at_once(store):
    names = store.names() * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(store.read, names)) == [FILES[name] for name in names]


def read_all(store: ZipStore | TarStore) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.names()}


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_worker_processes_read_the_same(method, tmp_path):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot start processes by {method}")
    opened = [
        open_archive(write_zip(tmp_path / "a.zip", FILES)),
        open_archive(write_tar(tmp_path / "a.tgz", FILES, "w:gz")),
    ]
    opened[0].read("cats/1.png")  # so that a fork shares an open file
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(read_all, opened * 2) == [FILES] * 4
    assert [read_all(store) for store in opened] == [FILES] * 2


def drop(holder: list[TarStore]) -> None:
    holder.clear()


def test_a_forked_worker_does_not_take_the_temporary_file_away(tmp_path):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    holder = [open_archive(write_tar(tmp_path / "a.tgz", FILES, "w:gz"))]
    worker = multiprocessing.get_context("fork").Process(target=drop, args=(holder,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert read_all(holder[0]) == FILES


def test_copies_by_pickle_read_the_same(store):
    assert read_all(pickle.loads(pickle.dumps(store))) == FILES


def test_a_compressed_tar_leaves_no_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    store = open_archive(write_tar(tmp_path / "a.tgz", FILES, "w:gz"))
    assert len(list((tmp_path / "spool").iterdir())) == 1
    del store
    assert not list((tmp_path / "spool").iterdir())
    for broken in (b"\x1f\x8bnot gzip", (tmp_path / "a.tgz").read_bytes()[:3000]):
        (tmp_path / "broken.tgz").write_bytes(broken)
        with pytest.raises(DataError, match=r"broken\.tgz"):
            open_archive(tmp_path / "broken.tgz")
    assert not list((tmp_path / "spool").iterdir())


UNSAFE = [
    "/etc/passwd",
    "../up.png",
    "a/../../up.png",
    "a/..",
    "C:/x.png",
    "c:x.png",
    "\\\\host\\x.png",
    "a\\..\\..\\x",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_leave_the_archive_are_refused(name, tmp_path):
    for path in (write_zip(tmp_path / "a.zip", {name: b"x"}), write_tar(tmp_path / "a.tar", {name: b"x"})):
        with pytest.raises(DataError, match="points outside") as caught:
            open_archive(path)
        assert repr(name) in str(caught.value)


@given(name=st.text(st.sampled_from("ab/\\.: "), min_size=1, max_size=12))
@settings(max_examples=80, deadline=None)
def test_accepted_names_stay_inside(name):
    with tempfile.TemporaryDirectory() as folder:
        try:
            names = open_archive(write_tar(Path(folder) / "a.tar", {name: b"x"})).names()
        except DataError:
            return
        root = Path(folder).resolve()
        assert all((root / inner).resolve().is_relative_to(root) for inner in names)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "../.."])
def test_links_that_leave_the_tar_are_refused(kind, target, tmp_path):
    path = write_tar(tmp_path / "a.tar", FILES, extra=(link("cats/link.png", target, kind),))
    with pytest.raises(DataError, match="outside the archive") as caught:
        open_archive(path)
    assert "cats/link.png" in str(caught.value)


def test_links_within_the_tar_are_followed(tmp_path):
    links = (
        link("dogs/same.png", "../cats/1.png"),
        link("hard.png", "cats/1.png", tarfile.LNKTYPE),
        link("twice.png", "hard.png"),
        link("loop.png", "pool.png"),
        link("pool.png", "loop.png"),
        link("gone.png", "nowhere.png"),
    )
    store = open_archive(write_tar(tmp_path / "a.tar", FILES, extra=links))
    assert (
        store.read("dogs/same.png")
        == store.read("hard.png")
        == store.read("twice.png")
        == FILES["cats/1.png"]
    )
    for name in ("loop.png", "gone.png"):
        assert image_error(store, name).kind == "corrupt"


def test_devices_and_pipes_in_a_tar_are_no_files(tmp_path):
    odd = (link("pipe.png", "", tarfile.FIFOTYPE), link("disk.png", "", tarfile.CHRTYPE))
    assert open_archive(write_tar(tmp_path / "a.tar", FILES, extra=odd)).names() == sorted(FILES)


def test_a_symbolic_link_in_a_zip_is_never_followed(tmp_path):
    entry = zipfile.ZipInfo("link.png")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    assert open_archive(tmp_path / "a.zip").read("link.png") == b"/etc/passwd"


def patched(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def test_an_encrypted_member_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"secret"})
    central = path.read_bytes().index(b"PK\x01\x02")
    data = bytearray(path.read_bytes())
    data[central + 8] |= 1
    path.write_bytes(bytes(data))
    assert "encrypted" in str(image_error(open_archive(path), "a.png"))


def test_a_bomb_is_refused_by_its_declared_size(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "MAX_MEMBER_BYTES", 1 << 20)
    for path in (
        write_zip(tmp_path / "a.zip", {"a.png": bytes(2 << 20)}),
        write_tar(tmp_path / "a.tar", {"a.png": bytes(2 << 20)}),
    ):
        assert image_error(open_archive(path), "a.png").kind == "too_large"


def test_a_bomb_that_lies_about_its_size_is_stopped(tmp_path):
    size = 64 << 20
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(size)})
    patched(path, struct.pack("<I", size), struct.pack("<I", 1000))
    store = open_archive(path)
    tracemalloc.start()
    assert image_error(store, "a.png").kind == "corrupt"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_compressed_tar_that_expands_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_FREE_EXPANSION_BYTES", 1 << 20)
    path = write_tar(tmp_path / "a.tar.gz", {"a.png": bytes(8 << 20)}, "w:gz")
    with pytest.raises(DataError, match="expands to more than"):
        open_archive(path)


def test_a_damaged_member_is_found_by_its_checksum(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"original", "b.png": b"fine"}, zipfile.ZIP_STORED)
    store = open_archive(patched(path, b"original", b"Original"))
    assert image_error(store, "a.png").kind == "corrupt"
    assert store.read("b.png") == b"fine"


def test_an_unknown_compression_says_what_to_do(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"x" * 100}, zipfile.ZIP_LZMA)
    assert "deflate" in str(image_error(open_archive(path), "a.png"))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_a_cut_archive_never_gives_wrong_bytes(name, tmp_path):
    whole = tmp_path / f"whole-{name}"
    if name.endswith(".zip"):
        write_zip(whole, FILES)
    else:
        write_tar(whole, FILES, TAR_MODES[name[1:]])
    data = whole.read_bytes()
    for length in range(0, len(data), len(data) // 12):
        path = tmp_path / name
        path.write_bytes(data[:length])
        try:
            store = open_archive(path)
            for member in store.names():
                assert store.read(member) == FILES[member]
        except DataError as error:
            assert name in str(error)


@settings(max_examples=120, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["zip", "tar"]))
def test_a_damaged_archive_gives_its_bytes_or_a_typed_error(data, kind):
    small = {"cats/1.png": b"one" * 50, "cats/2.png": b"two"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{kind}"
        (write_zip if kind == "zip" else write_tar)(path, small)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 5))):
            content[data.draw(st.integers(0, min(len(content), 1200) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(bytes(content))
        try:
            store = open_archive(path)
            for name in store.names():
                store.read(name)
        except DataError:
            pass


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", os.urandom(2000)]
)
def test_other_files_are_no_archives(content, tmp_path):
    path = tmp_path / "photos.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"photos\.bin"):
        open_archive(path)


def test_utf8_names_without_the_flag_are_read_rightly(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"花/é.png": b"x"})
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        data[data.index(magic) + offset] &= ~0x08
    path.write_bytes(bytes(data))
    assert open_archive(path).names() == ["花/é.png"]


def test_backslashes_separate_folders_in_archives_from_windows(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"cats/1.png": b"x"})
    assert open_archive(patched(path, b"cats/1.png", b"cats\\1.png")).names() == ["cats/1.png"]


def test_signatures_follow_the_content_of_a_zip(tmp_path):
    one = open_archive(write_zip(tmp_path / "a.zip", {"a": b"123"})).signature("a")
    other = open_archive(write_zip(tmp_path / "b.zip", {"a": b"124"})).signature("a")
    assert one == f"3:{zlib.crc32(b'123'):08x}" != other


def test_empty_folders_are_told(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"cats/": b"", "cats/1.png": b"x", "dogs/": b""})
    assert open_archive(path).empty_folders() == ["dogs/"]
    path = write_tar(tmp_path / "a.tar", {"cats/1.png": b"x"}, extra=(link("dogs", "", tarfile.DIRTYPE),))
    assert open_archive(path).empty_folders() == ["dogs/"]
