"""Folders and memory behind the store interface."""

import os
import pickle

import pytest

from inception.data import stores
from inception.data.stores import FolderStore, MemoryStore
from inception.errors import DataError, ImageError


def test_a_folder_lists_every_file_with_its_size(make_tree):
    root = make_tree(["b/2.png", "a/1.png", "README.txt", "b/deep/3.png"])
    store = FolderStore(root)
    assert store.names() == ["README.txt", "a/1.png", "b/2.png", "b/deep/3.png"]
    assert store.read("README.txt") == b"text"
    assert (store.size("README.txt"), store.signature("README.txt")) == (4, "4")
    assert store.location == str(root)
    assert store.empty_folders() == []


def test_empty_folders_are_told(make_tree):
    root = make_tree(["cats/1.png"])
    (root / "dogs" / "old").mkdir(parents=True)
    assert FolderStore(root).empty_folders() == ["dogs/", "dogs/old/"]


def test_links_are_followed_but_not_in_circles(make_tree, tmp_path):
    root = make_tree(["cats/1.png"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.png").write_bytes(b"x")
    (root / "dogs").symlink_to(tmp_path / "elsewhere")
    (root / "cats" / "again").symlink_to(root)
    (root / "cats" / "gone.png").symlink_to(tmp_path / "nothing")
    (root / "cats" / "loop.png").symlink_to(root / "cats" / "loop.png")
    assert FolderStore(root).names() == ["cats/1.png", "dogs/2.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes in folders exist on POSIX only")
def test_a_pipe_is_not_a_file(make_tree):
    root = make_tree(["cats/1.png"])
    os.mkfifo(root / "cats" / "2.png")  # reading it would wait for ever
    assert FolderStore(root).names() == ["cats/1.png"]


def test_missing_and_unreadable_files_are_named(make_tree, monkeypatch):
    store = FolderStore(make_tree(["cats/1.png"]))
    with pytest.raises(DataError, match=r"cats/2\.png"):
        store.read("cats/2.png")
    with pytest.raises(DataError, match=r"cats/2\.png"):
        store.size("cats/2.png")
    with pytest.raises(ImageError, match="cats"):
        store.read("cats")
    monkeypatch.setattr(stores, "MAX_MEMBER_BYTES", 10)
    with pytest.raises(ImageError) as caught:
        store.read("cats/1.png")
    assert caught.value.kind == "too_large"


def test_a_folder_store_travels_light(make_tree):
    store = FolderStore(make_tree([f"cats/{number}.png" for number in range(50)]))
    names = store.names()
    packed = pickle.dumps(store)
    assert len(packed) < 400
    assert pickle.loads(packed).names() == names


def test_memory():
    store = pickle.loads(pickle.dumps(MemoryStore({"b": b"two", "a": b"one"}, "here")))
    assert (store.names(), store.read("a"), store.size("b"), store.location) == (
        ["a", "b"],
        b"one",
        3,
        "here",
    )
    assert store.signature("a") != store.signature("b")
    assert store.empty_folders() == []
    with pytest.raises(DataError, match="'c'"):
        store.read("c")
