"""What counts as shards of other tools, and what of a tar beside loose images."""

import errno
import tarfile
from pathlib import Path

import pytest

from inception.data.sharding import write_shards
from inception.data.shards import ShardStore
from inception.data.sources import open_dataset
from inception.data.webdataset import find_shards, open_shard_images
from inception.errors import DataError

CLASSES = [f"{label}/{number}.png" for label in ("cats", "dogs") for number in range(5)]


def tar_of(path: Path, files: list[Path]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for file in files:
            tar.add(file, file.name)
    return path


@pytest.mark.parametrize("where", ["a.png", "train/a.PNG", "test/cats/a.jpg"])
def test_a_tar_beside_loose_images_is_a_stray(make_tree, where):
    root = make_tree([where])
    tar_of(root / "old.tar", [root / where])
    assert find_shards(root) == ()


@pytest.mark.parametrize("where", ["classnames.txt", ".thumbnails/a.png", "train/._a.png"])
def test_text_and_hidden_images_beside_shards_change_nothing(make_tree, where):
    root = make_tree([where])
    shards = (tar_of(root / "0.tar", []), tar_of(root / "test" / "1.tar", []))
    assert find_shards(root) == shards


@pytest.mark.parametrize("split", ["", "train/"])
def test_a_data_set_with_a_stray_tar_is_what_it_was(make_tree, split):
    root = make_tree(f"{split}{name}" for name in CLASSES)
    expected = open_dataset(root)
    tar_of(root / "old.tar", [root / split / "cats" / "0.png"])
    found = open_dataset(root)
    assert (found.labels, found.samples) == (expected.labels, expected.samples)
    assert found.strays == ("old.tar",)


def test_our_own_index_is_believed_beside_images(make_tree, tmp_path):
    root = make_tree(CLASSES)
    write_shards(open_dataset(root), tmp_path / "shards")
    (tmp_path / "shards" / "preview.png").write_bytes((root / CLASSES[0]).read_bytes())
    assert len(open_dataset(tmp_path / "shards").samples) == len(CLASSES)


def test_every_image_of_a_sample_is_found(make_tree, tmp_path):
    """The key of WebDataset ends at the first dot: cat.0.png and cat.1.PNG are of one sample."""
    names = ["cat.0.png", "cat.1.PNG", "dog.input.jpg", "dog.png", ".hidden.png", "dog.txt"]
    root = make_tree(names)
    shard = tar_of(tmp_path / "set" / "0.tar", [root / name for name in names])
    store = open_shard_images(tmp_path / "set", find_shards(tmp_path / "set"))
    assert isinstance(store, ShardStore)
    assert store.names() == [f"0.tar/{name}" for name in names[:4]]
    assert [store.read(name) for name in store.names()] == [(root / name).read_bytes() for name in names[:4]]
    assert shard.is_file()


def test_a_folder_that_may_not_be_read_is_one_sentence(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        open_dataset(tmp_path)
