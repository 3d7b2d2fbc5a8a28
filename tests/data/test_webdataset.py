"""What counts as shards of other tools, and what of a tar beside loose images."""

import errno
import io
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


def write_samples(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["img.v2.{:03}", "2021.05.{}", "a/site.1.{}", "IMG.{}"])
@pytest.mark.parametrize("kind", ["cls", "json"])
def test_the_last_dot_decides_where_that_alone_gives_classes(tmp_path, name, kind):
    members = {}
    for number in range(6):
        key = name.format(number)
        members[f"{key}.png"] = bytes([number])
        members[f"{key}.{kind}"] = (
            str(number % 2).encode() if kind == "cls" else b'{"label": %d}' % (number % 2)
        )
    write_samples(tmp_path / "set" / "0.tar", members)
    dataset = open_dataset(tmp_path / "set")
    assert dataset.labels == ("0", "1")
    assert sorted(sample.path for sample in dataset.samples) == sorted(
        f"0.tar/{member}" for member in members if member.endswith(".png")
    )
    for sample in dataset.samples:
        assert dataset.read(sample)[0] % 2 == sample.label
    [note] = dataset.notes
    assert "the last one ends a sample's name" in note


def test_a_single_tar_with_dots_is_taken_for_shards(tmp_path):
    members = {f"im.{n}.{kind}": str(n % 2).encode() for n in range(6) for kind in ("jpg", "cls")}
    assert len(open_dataset(write_samples(tmp_path / "0.tar", members)).samples) == 6


def test_the_first_dot_decides_where_it_gives_classes(tmp_path):
    members = {
        name: data
        for n in range(4)
        for name, data in ((f"{n}.seg.png", b"s"), (f"{n}.png", b"i"), (f"{n}.cls", str(n % 2).encode()))
    }
    write_samples(tmp_path / "set" / "0.tar", members)
    dataset = open_dataset(tmp_path / "set")
    assert {dataset.read(sample) for sample in dataset.samples} == {b"i"}
    assert dataset.notes == (
        "4 samples hold more than one image: the one with fewest dots in its name is taken",
    )


def test_a_dot_is_named_as_the_cause_where_neither_gives_classes(tmp_path):
    write_samples(tmp_path / "set" / "0.tar", {"img.v2.000.png": b"", "img.v2.000.cls": b"0", "a.b.jpg": b""})
    with pytest.raises(DataError, match="which is 'img', as it ends at the first dot; take the other dots"):
        open_dataset(tmp_path / "set")


def test_an_image_without_class_and_dots_is_no_matter_of_dots(tmp_path):
    write_samples(tmp_path / "set" / "0.tar", {"a.png": b"", "a.cls": b"0", "b.png": b""})
    with pytest.raises(DataError, match=r"no class for the image b\.png: .* of the same key\.$"):
        open_dataset(tmp_path / "set")


def test_formats_that_are_not_read_are_counted(tmp_path):
    members = {f"{n}.{kind}": str(n % 2).encode() for n in range(4) for kind in ("png", "cls")}
    write_samples(tmp_path / "set" / "0.tar", members | {"9.jxl": b"", "9.cls": b"1"})
    [(reason, paths)] = open_dataset(tmp_path / "set").left_out.items()
    assert reason.startswith("JPEG XL, not read")
    assert paths == ("0.tar/9.jxl",)


@pytest.mark.parametrize("indexed", [False, True])
def test_shards_with_one_class_are_measured_but_not_trained_on(tmp_path, make_tree, indexed):
    folder = tmp_path / "shards"
    if indexed:
        write_shards(open_dataset(make_tree(CLASSES[:5]), measuring=True), folder)
    else:
        write_samples(folder / "0.tar", {f"{n}.{kind}": b"0" for n in range(4) for kind in ("png", "cls")})
    assert len(open_dataset(folder, measuring=True).labels) == 1
    with pytest.raises(DataError, match="single class"):
        open_dataset(folder)
