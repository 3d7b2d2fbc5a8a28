"""Files are the old ones or the new ones, whatever happens in between."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from inception import files
from inception.errors import WriteError
from inception.files import atomic_directory, atomic_path, atomic_write_bytes, atomic_write_text, sha256_file


class PowerCut(Exception):  # noqa: N818
    """Stands for a crash at this instant."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sha256_is_hashlibs_for_files_of_several_chunks(tmp_path):
    data = os.urandom(3 * (1 << 20) + 17)
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_writes_into_new_folders_and_over_old_content(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    atomic_write_text(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    atomic_write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names(path.parent) == ["file.txt"]


def test_a_folder_in_the_way_of_a_file_is_one_sentence(tmp_path):
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match="cannot write"):
        files.make_folder(tmp_path / "file" / "b")


def test_a_new_file_has_an_ordinary_mode(tmp_path):
    atomic_write_text(tmp_path / "ours", "")
    (tmp_path / "ordinary").write_text("")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "ordinary")}
    assert len(modes) == 1


def test_an_error_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(PowerCut), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise PowerCut
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_the_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor):
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def watched_replace(self, target):
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    atomic_write_text(tmp_path / "file", "new")
    assert events == ["file", "rename", "folder"]


def test_a_folder_replaces_the_old_one_whole(tmp_path):
    path = tmp_path / "bundle"
    for content in ("old", "new"):
        with atomic_directory(path) as folder:
            (folder / content).write_text(content)
            (folder / "sub").mkdir()
            (folder / "sub" / "file").write_text(content)
    assert names(path) == ["new", "sub"]
    assert (path / "sub" / "file").read_text() == "new"
    assert names(tmp_path) == ["bundle"]


def test_an_error_leaves_the_old_folder(tmp_path):
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(PowerCut), atomic_directory(path) as folder:
        (folder / "new").write_text("new")
        raise PowerCut
    assert names(path) == ["old"]
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize("step", range(6))
def test_at_every_instant_one_whole_folder_is_there(tmp_path, monkeypatch, step):
    """Kill the process before each of its changes to the disk: old or new is complete."""
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "a").write_text("old")
    (path / "b").write_text("old")
    pid, count = os.fork(), 0
    if pid == 0:

        def dying(function):
            def call(*arguments, **options):
                nonlocal count
                if count == step:
                    os._exit(9)
                count += 1
                return function(*arguments, **options)

            return call

        monkeypatch.setattr(Path, "rename", dying(Path.rename))
        monkeypatch.setattr(files, "_sync_file", dying(files._sync_file))
        monkeypatch.setattr(files.shutil, "rmtree", dying(files.shutil.rmtree))
        with atomic_directory(path) as folder:
            (folder / "a").write_text("new")
            (folder / "b").write_text("new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    place = path if path.exists() else tmp_path / ".bundle.old"
    contents = {(place / name).read_text() for name in ("a", "b")}
    assert len(contents) == 1
    # Writing again puts everything right.
    with atomic_directory(path) as folder:
        (folder / "a").write_text("newest")
    assert names(path) == ["a"]
    assert not (tmp_path / ".bundle.old").exists()
