"""The same photos as folders, archives and tables; and what is wrong, said clearly."""

import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from inception.data.sources import open_dataset
from inception.errors import DataError, UsageError

CLASSES = [f"{label}/{number}.png" for label in ("cats", "dogs") for number in range(10)]


def packed(root: Path, kind: str) -> Path:
    """The folder as it is, or as an archive of its content."""
    if kind == "folder":
        return root
    target = root.parent / f"{root.name}.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path in sorted(root.rglob("*")):
                archive.write(path, path.relative_to(root))
    else:
        with tarfile.open(target, "w:gz" if kind == "tar.gz" else "w") as archive:
            archive.add(root, ".")
    return target


def layout(dataset) -> set[tuple[str, str, str]]:
    return {(sample.path, dataset.labels[sample.label], sample.split) for sample in dataset.samples}


def sizes(dataset) -> dict[str, int]:
    return {split: len(dataset.split(split)) for split in dataset.splits}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_class_folders_are_divided_alike_wherever_they_are(kind, make_tree):
    root = make_tree(CLASSES)
    dataset = open_dataset(packed(root, kind))
    assert dataset.labels == ("cats", "dogs")
    assert sizes(dataset) == {"train": 16, "val": 2, "test": 2}
    assert layout(dataset) == layout(open_dataset(root))
    assert dataset.automatic_split
    sample = dataset.split("test")[0]
    assert dataset.read(sample) == (root / sample.path).read_bytes()


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "val", "test"), {"train": 20, "val": 20, "test": 20}),
        (("Training", "valid", "TEST"), {"train": 20, "val": 20, "test": 20}),
        (("train", "validation"), {"train": 20, "val": 20}),
        (("train", "test"), {"train": 18, "val": 2, "test": 20}),
        (("train",), {"train": 16, "val": 2, "test": 2}),
        (("val",), {"val": 20}),
        (("test",), {"test": 20}),
    ],
)
def test_split_folders(kind, names, expected, make_tree):
    root = make_tree([f"{split}/{name}" for split in names for name in CLASSES])
    dataset = open_dataset(packed(root, kind))
    assert sizes(dataset) == expected
    assert dataset.automatic_split == (names == ("train",))
    given = {"TEST": "test", "test": "test", "val": "val", "valid": "val", "validation": "val"}
    for sample in dataset.samples:
        top = sample.path.partition("/")[0]
        if top in given:
            assert sample.split == given[top]


def test_classes_that_are_called_like_splits(make_tree):
    dataset = open_dataset(
        make_tree([f"{label}/{number}.png" for label in ("train", "plane") for number in range(3)])
    )
    assert dataset.labels == ("plane", "train")
    assert len(dataset.samples) == 6


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("prefix", ["data", "a/b"])
def test_a_single_folder_around_everything_is_entered(kind, prefix, make_tree):
    root = make_tree([f"{prefix}/train/{name}" for name in CLASSES] + [f"{prefix}/README.md", "LICENSE"])
    dataset = open_dataset(packed(root, kind))
    assert dataset.labels == ("cats", "dogs")
    assert sizes(dataset) == {"train": 16, "val": 2, "test": 2}
    assert dataset.strays == ("LICENSE", f"{prefix}/README.md")
    bare = make_tree([f"bare/{prefix}/{name}" for name in CLASSES])
    assert open_dataset(bare / "bare").labels == ("cats", "dogs")


def test_wrapping_does_not_change_the_division(make_tree):
    root = make_tree(CLASSES)
    plain = {(Path(path).name, label, split) for path, label, split in layout(open_dataset(root))}
    shutil.move(root, root.parent / "wrapped" / "photos")
    assert {
        (Path(path).name, label, split)
        for path, label, split in layout(open_dataset(root.parent / "wrapped"))
    } == plain


def test_hidden_and_system_files_are_strays(make_tree):
    extra = [
        "cats/.DS_Store",
        "__MACOSX/cats/._1.png",
        ".git/objects/1.png",
        "Thumbs.db",
        "cats/Thumbs.db",
        ".x.png",
    ]
    root = make_tree([*CLASSES, *extra, "README.txt", "loose.png", "cats/notes.txt"])
    (root / "unicorns").mkdir()
    dataset = open_dataset(root)
    assert dataset.labels == ("cats", "dogs")
    assert set(dataset.strays) == {
        *("cats/.DS_Store", "__MACOSX", ".git", "Thumbs.db", "cats/Thumbs.db", ".x.png"),
        *("README.txt", "cats/notes.txt", "unicorns/"),
    }
    assert dataset.left_out == {"in no class folder": ("loose.png",)}


def test_images_deeper_in_a_class_folder_belong_to_it(make_tree):
    dataset = open_dataset(make_tree(["cats/1.png", "cats/2020/2.JPG", "dogs/a/b/3.jpeg"]))
    assert {(path, label) for path, label, _ in layout(dataset)} == {
        ("cats/1.png", "cats"),
        ("cats/2020/2.JPG", "cats"),
        ("dogs/a/b/3.jpeg", "dogs"),
    }


def test_labels_are_in_natural_order(make_tree):
    dataset = open_dataset(
        make_tree([f"{label}/1.png" for label in ("10", "9", "class 2", "class 10", "B", "a")])
    )
    assert dataset.labels == ("9", "10", "B", "a", "class 2", "class 10")


def test_classes_are_matched_by_name_not_by_position(make_tree):
    names = [f"train/{label}/{number}.png" for label in ("ant", "bee", "cat") for number in range(3)]
    dataset = open_dataset(make_tree([*names, "test/bee/1.png", "test/cat/1.png"]))
    assert {(path, label) for path, label, split in layout(dataset) if split == "test"} == {
        ("test/bee/1.png", "bee"),
        ("test/cat/1.png", "cat"),
    }


def test_a_class_that_train_lacks_is_named(make_tree):
    root = make_tree(["train/kitten/1.png", "train/dog/1.png", "val/kiten/1.png", "val/dog/1.png"])
    with pytest.raises(DataError, match=r"'kiten' \(near 'kitten'\)"):
        open_dataset(root)


def write_table(root: Path, name: str, lines: list[str], encoding: str = "utf-8") -> Path:
    (root / name).write_bytes("\r\n".join(lines).encode(encoding))
    return root / name


@pytest.mark.parametrize(
    ("name", "header", "separator"),
    [
        ("list.csv", "path,label", ","),
        ("list.csv", "Image,Class", ","),
        ("list.csv", "filename;category", ";"),
        ("list.tsv", "file\tsynset", "\t"),
        ("list.CSV", '"path","label"', ","),
    ],
)
def test_tables(name, header, separator, make_tree):
    root = make_tree(["images/1.png", "images/2.png", "images/b, c.png", "images/3.png"])
    rows = [f"images/1.png{separator}cat", f"images\\2.png{separator}dog", f'"images/b, c.png"{separator}cat']
    dataset = open_dataset(write_table(root, name, [header, *rows, ""], "utf-8-sig"))
    assert {(path, label) for path, label, _ in layout(dataset)} == {
        ("images/1.png", "cat"),
        ("images/2.png", "dog"),
        ("images/b, c.png", "cat"),
    }
    assert all(dataset.read(sample) for sample in dataset.samples)
    assert dataset.strays == ()


def test_a_table_may_give_splits_and_paths_elsewhere(make_tree):
    root = make_tree(["images/1.png", "2.png", "images/3.png"])
    (root / "lists").mkdir()
    rows = ["../images/1.png,cat,Train", f"{root}/2.png,dog,train", "../images/3.png,dog,valid"]
    dataset = open_dataset(write_table(root / "lists", "list.csv", ["path,label,split", *rows]))
    assert sizes(dataset) == {"train": 2, "val": 1}
    assert {Path(path).name: label for path, label, _ in layout(dataset)} == {
        "1.png": "cat",
        "2.png": "dog",
        "3.png": "dog",
    }
    assert all(dataset.read(sample) for sample in dataset.samples)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["name,kind,size", "1.png,cat,7"], "needs a column of paths and one of labels.*'kind'"),
        ([""], "needs a column of paths"),
        (["path,label", "1.png,cat", "9.png,dog"], r"files that do not exist: '9\.png'"),
        (["path,label", "1.png"], "line 2, has 1 fields"),
        (["path,label", "1.png,"], "no row has a label"),
        (["path,label,split", "1.png,cat,later"], "line 2 'later'"),
        (["path,label", "1.png,cat", "1.png,dog"], r"line 3, lists '1\.png' again"),
        (["path,label", "1.png,cat", "2.png,cat"], "single class 'cat'"),
        (["path,label"], "no row has a label"),
    ],
)
def test_bad_tables_say_where(lines, message, make_tree):
    table = write_table(make_tree(["1.png", "2.png"]), "list.csv", lines)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(table)
    assert str(table.parent) in str(caught.value)


def test_a_table_must_be_utf8(make_tree):
    table = write_table(make_tree(["1.png"]), "list.csv", ["path,label", "1.png,Katze groß"], "latin-1")
    with pytest.raises(DataError, match="UTF-8"):
        open_dataset(table)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("prefix", ["", "set/"])
def test_a_labels_file_beside_flat_images(kind, prefix, make_tree):
    root = make_tree([f"{prefix}{number}.png" for number in range(6)])
    rows = [f"{number}.png,{'cat' if number % 2 else 'dog'}" for number in range(5)]
    write_table(root / prefix, "labels.csv", ["file,synset", *rows])
    dataset = open_dataset(packed(root, kind))
    assert {Path(path).name: label for path, label, _ in layout(dataset)} == {
        f"{number}.png": "cat" if number % 2 else "dog" for number in range(5)
    }
    assert dataset.strays == (f"{prefix}5.png",)


def test_a_labels_file_of_another_kind_is_a_stray(make_tree):
    root = make_tree(CLASSES)
    write_table(root, "labels.csv", ["id,name", "1,cats"])
    assert open_dataset(root).strays == ("labels.csv",)


@pytest.mark.parametrize("prefix", ["", "samples/"])
def test_flat_files_named_by_synset(prefix, make_tree):
    names = ["n01440764_tench.JPEG", "n01440764_10026.jpg", "n02119789_kit_fox.png", "other.png", "n12_x.png"]
    dataset = open_dataset(make_tree([prefix + name for name in names]))
    assert dataset.labels == ("n01440764", "n02119789")
    assert set(dataset.left_out["in no class folder"]) == {f"{prefix}other.png", f"{prefix}n12_x.png"}


def test_without_a_fraction_nothing_is_divided(make_tree):
    dataset = open_dataset(make_tree(CLASSES), val_fraction=0)
    assert sizes(dataset) == {"train": 20}
    assert dataset.evaluation_split() == "all"
    assert not dataset.automatic_split


def test_what_cannot_be_opened_says_why(make_tree, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'flowers102'"):
        open_dataset("flower102")
    with pytest.raises(UsageError, match="named sets are digits"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no labelled images"):
        open_dataset(tmp_path / "empty")
    with pytest.raises(DataError, match="no labelled images"):
        open_dataset(make_tree(["1.png", "2.png", "cats/readme.txt"]))
    shutil.rmtree(tmp_path / "photos")
    with pytest.raises(DataError, match="single class 'cats'"):
        open_dataset(make_tree(["cats/1.png", "cats/2.png"]))
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(DataError, match=r"file\.txt"):
        open_dataset(tmp_path / "file.txt")


def test_home_is_expanded(make_tree, monkeypatch):
    root = make_tree(CLASSES)
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(open_dataset("~/photos").samples) == 20


def test_the_shared_sets_open_as_described(shared):
    flowers = open_dataset(shared / "data" / "flowers12.zip")
    assert (len(flowers.labels), sizes(flowers)) == (12, {"train": 648, "val": 72, "test": 240})
    assert flowers.strays == ("README.txt",)
    validation = open_dataset(shared / "data" / "imagenet-val-650.zip", val_fraction=0)
    assert (len(validation.samples), validation.strays) == (650, ())
    samples = open_dataset(shared / "data" / "imagenet-samples.zip")
    assert (len(samples.samples), len(samples.labels)) == (100, 100)


def test_a_zip_of_60000_files_is_split(shared):
    dataset = open_dataset(shared / "data" / "cifar10.zip")
    assert sizes(dataset) == {"train": 45000, "val": 5000, "test": 10000}
