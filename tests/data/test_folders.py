"""Folders as Kaggle, other tools and people lay them out: read, or refused with what to do."""

import os
import sys

import pytest

from inception.data.options import ReadOptions
from inception.data.sources import open_dataset
from inception.data.split_names import split_named
from inception.errors import DataError, UsageError


@pytest.fixture
def opened(make_tree):
    def make(*names: str, **options):
        return open_dataset(make_tree(list(names)), options=ReadOptions(**options))

    return make


def classes(prefix: str, count: int = 3, labels: tuple[str, ...] = ("cat", "dog")) -> list[str]:
    return [f"{prefix}{label}/{number}.png" for label in labels for number in range(count)]


def sizes(dataset) -> dict[str, int]:
    return {split: len(dataset.split(split)) for split in dataset.splits}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "TRAINING", "train_set", "training_set", "train_images")),
        *((name, "train") for name in ("seg_train", "Train", "TRAIN_DATA", "TrainImages", "train2017")),
        *((name, "val") for name in ("val", "valid", "validation_set", "dev", "Validation-Images", "val.1")),
        *((name, "test") for name in ("test", "testing", "test_set", "eval", "holdout", "seg_test")),
        *((name, None) for name in ("trainer", "car", "steam train", "testudo", "positive", "latest", "")),
    ],
)
def test_words_for_splits(name, split):
    assert split_named(name) == split


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train_set", "test_set"),
        ("training", "testing"),
        ("Train_Data", "Test_Data"),
        ("seg_train", "seg_test"),
    ],
)
@pytest.mark.parametrize("doubled", [False, True])
def test_top_folders_that_are_all_called_like_splits_are_splits(opened, train, test, doubled):
    tops = [f"{name}/{name}/" if doubled else f"{name}/" for name in (train, test)]
    dataset = opened(*classes(tops[0], 10), *classes(tops[1]))
    assert dataset.labels == ("cat", "dog")
    assert len(dataset.split("test")) == 6
    if train != "training":
        assert any(f"{train!r} is train" in note for note in dataset.notes)


@pytest.mark.parametrize("labels", [("bus", "car", "train"), ("negative", "positive", "test")])
def test_classes_called_like_a_split_stay_classes(opened, labels):
    assert opened(*classes("", labels=labels)).labels == labels


@pytest.mark.parametrize("tops", [("train", "test"), ("train_set", "test_set")])
def test_split_folders_without_classes_are_refused(opened, tops):
    with pytest.raises(DataError, match="called like a split, without class folders"):
        opened(*(f"{top}/{letter}.png" for top in tops for letter in "abc"))


def test_splits_inside_the_classes(opened):
    dataset = opened(*(f"{label}/{s}/{n}.png" for label in "ab" for s in ("train", "test") for n in range(4)))
    assert dataset.labels == ("a", "b")
    assert len(dataset.split("test")) == 8
    assert any("are the splits" in note for note in dataset.notes)


@pytest.mark.parametrize("name", ["test/{}.png", "pred/{}.png", "test/images/{}.png"])
def test_unlabelled_pictures_are_left_out_and_counted(opened, name):
    dataset = opened(*classes("train/", 10), *(name.format(n) for n in range(3)))
    assert dataset.labels == ("cat", "dog")
    assert [len(paths) for paths in dataset.left_out.values()] == [3]


def test_system_folders_are_no_classes(opened):
    folders = ("__pycache__", ".ipynb_checkpoints", "$RECYCLE.BIN", "System Volume Information", "lost+found")
    folders += ("@eaDir", "#recycle", ".Trashes", "__MACOSX")
    dataset = opened(*classes(""), *(f"{folder}/x.png" for folder in folders), "cat/._0.png", "dog/Thumbs.db")
    assert dataset.labels == ("cat", "dog")
    assert len(dataset.samples) == 6
    assert not dataset.left_out


def test_names_equal_in_unicode_are_one_class(opened):
    dataset = opened(*classes("train/", 10, ("caf\u00e9", "t")), *classes("test/", 2, ("cafe\u0301", "t")))
    assert dataset.labels == ("caf\u00e9", "t")
    assert any("composed and decomposed" in note for note in dataset.notes)


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8 exist on Linux only")
def test_a_name_that_is_no_utf8_is_shown_readably(opened, make_tree):
    root = make_tree(classes(""))
    (root / "cat").rename(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))
    assert open_dataset(root).labels == ("caf\\xe9", "dog")


def test_names_that_differ_by_case_are_said(opened):
    dataset = opened(*classes("", labels=("cat", "Cat", "dog")))
    assert dataset.labels == ("Cat", "cat", "dog")
    assert any("Cat and cat" in note for note in dataset.notes)


def test_two_levels_are_said_and_both_are_possible(opened):
    names = [*classes("animal/"), *classes("plant/", labels=("oak", "elm"))]
    outer = opened(*names)
    assert outer.labels == ("animal", "plant")
    assert any("2 folders hold folders" in note and "the 4 inner ones" in note for note in outer.notes)
    assert open_dataset(outer.store.location, options=ReadOptions(classes="leaf")).labels == (
        "cat",
        "dog",
        "elm",
        "oak",
    )


def test_tiny_imagenet(opened, make_tree):
    train = [f"train/{s}/images/{s}_{n}.png" for s in ("n01443537", "n01629819") for n in range(4)]
    root = make_tree([*train, *(f"val/images/val_{n}.png" for n in range(4)), "test/images/test_0.png"])
    rows = [f"val_{n}.png\t{('n01443537', 'n01629819')[n % 2]}\t0\t0\t5\t5" for n in range(4)]
    (root / "val" / "val_annotations.txt").write_text("\n".join(rows))
    dataset = open_dataset(root)
    assert dataset.labels == ("n01443537", "n01629819")
    assert sizes(dataset) == {"train": 8, "val": 4}
    assert list(dataset.left_out.values()) == [("test/images/test_0.png",)]


@pytest.mark.parametrize("prefix", ["", "train/"])
@pytest.mark.parametrize(
    "form",
    ["{label}.{n}.png", "{label}_{n:03}.png", "{label}{n}.png", "{label} ({n}).png", "{label}-{n}.jpg"],
)
def test_classes_in_file_names_by_the_pattern_that_the_refusal_shows(opened, prefix, form):
    names = [prefix + form.format(label=label, n=n) for label in ("Bengal", "pug") for n in range(5)]
    with pytest.raises(DataError, match="--label-from") as caught:
        opened(*names)
    pattern = str(caught.value).partition("--label-from '")[2].partition("'")[0]
    assert opened(*names, label_from=pattern).labels == ("Bengal", "pug")


def test_patterns_that_are_none(opened):
    with pytest.raises(UsageError, match="no regular expression"):
        opened(*classes(""), label_from="(")
    with pytest.raises(UsageError, match="needs a group"):
        opened(*classes(""), label_from="cat")


def test_images_without_an_ending_are_known_by_content(opened, make_tree):
    root = make_tree(classes(""))
    for path in list(root.rglob("*.png")):
        path.rename(path.with_suffix(""))
    (root / "cat" / "README").write_text("about")
    dataset = open_dataset(root)
    assert dataset.labels == ("cat", "dog")
    assert dataset.strays == ("cat/README",)


def test_unlabelled_pictures_in_a_doubled_folder(opened):
    names = [*classes("seg_train/seg_train/"), *classes("seg_test/seg_test/"), "seg_pred/seg_pred/1.png"]
    dataset = opened(*names)
    assert dataset.labels == ("cat", "dog")
    assert [len(paths) for paths in dataset.left_out.values()] == [1]
    dataset.require_most(False)


def test_class_folders_beside_splits_are_not_called_unlabelled(opened):
    dataset = opened(*classes("train_set/"), *classes("test_set/"), *classes("extra/"))
    assert dataset.labels == ("cat", "dog")
    assert "these are splits: 'test_set' is test, 'train_set' is train" in dataset.notes[0]
    with pytest.raises(DataError, match="in 'extra', which is called like no split: rename it"):
        dataset.require_most(False)


@pytest.mark.parametrize(
    "inner", [("train_set", "test_set"), ("trainset", "testset"), ("TrainImages", "eval")]
)
def test_splits_of_any_word_inside_the_classes(opened, inner):
    dataset = opened(
        *(f"{label}/{name}/{n}.png" for label in ("cat", "dog") for name in inner for n in range(3))
    )
    assert dataset.labels == ("cat", "dog")
    assert sizes(dataset)["test"] == 6


def test_equal_names_of_inner_folders_decide_nothing_and_are_said(opened):
    dataset = opened(
        *classes("patient1/", labels=("left", "right")), *classes("patient2/", labels=("left", "right"))
    )
    assert dataset.labels == ("patient1", "patient2")
    assert "2 folders hold folders of the same names" in dataset.notes[0]


def test_the_pattern_is_that_of_the_training_images(opened):
    names = [
        *(f"train/{label}.{n}.png" for label in ("cat", "dog") for n in range(3)),
        "test1/1.png",
        "test1/2.png",
    ]
    with pytest.raises(DataError, match=r"names look like 'cat\.0\.png': --label-from"):
        opened(*names)


@pytest.mark.parametrize(
    ("train", "test"),
    [("cars_train", "cars_test"), ("asl_alphabet_train", "asl_alphabet_test"), ("train-jpg", "test-jpg")],
)
def test_split_folders_with_another_word_that_they_share(opened, train, test):
    dataset = opened(*classes(f"{train}/", 10), *classes(f"{test}/{test}/"))
    assert dataset.labels == ("cat", "dog")
    assert len(dataset.split("test")) == 6


def test_masks_beside_images_are_no_classes(opened):
    dataset = opened(
        *(f"{c}/{kind}/{n}.png" for c in ("a", "b") for kind in ("images", "masks") for n in range(3))
    )
    assert dataset.labels == ("a", "b")
    assert [len(paths) for paths in dataset.left_out.values()] == [6]
    assert all("masks" in reason for reason in dataset.left_out)


def test_a_copy_of_the_set_inside_itself_is_left_out(opened):
    dataset = opened(*classes("", 5), *classes("pets/", 5))
    assert dataset.labels == ("cat", "dog")
    assert dataset.left_out.keys() == {"a copy of the data set inside itself"}


@pytest.mark.parametrize("form", ["images_{:03}", "HAM10000_images_part_{}", "batch{}"])
def test_parts_of_an_archive_are_refused(opened, form):
    with pytest.raises(DataError, match="parts of one archive"):
        opened(*(f"{form.format(part)}/{n}.png" for part in (1, 2) for n in range(3)))


def test_numbered_classes_are_classes(opened):
    assert opened(*classes("", labels=("class_1", "class_2", "10"))).labels == ("10", "class_1", "class_2")


def test_people_as_classes_are_said(opened):
    dataset = opened(*classes("", labels=("patient01", "patient02")))
    assert any("called like people" in note for note in dataset.notes)


def test_lists_of_splits_that_are_not_read_are_said(opened, make_tree):
    root = make_tree(classes(""))
    (root / "meta").mkdir()
    (root / "meta" / "train.txt").write_text("cat/0")
    assert any("meta/train.txt: lists of splits are not read" in note for note in open_dataset(root).notes)


def test_tables_in_the_split_folders(make_tree):
    root = make_tree([f"{split}/{n}.png" for split in ("train", "valid", "test") for n in range(4)])
    for split in ("train", "valid", "test"):
        rows = [f"{n}.png,{n % 2},{1 - n % 2}" for n in range(4)]
        (root / split / "_classes.csv").write_text("\n".join(["filename, cat, dog", *rows]))
    dataset = open_dataset(root)
    assert dataset.labels == ("cat", "dog")
    assert sizes(dataset) == {"train": 4, "val": 4, "test": 4}


def test_a_table_beside_images_without_classes_is_named(make_tree):
    root = make_tree([f"train_images/{n}.png" for n in range(3)] + [f"test_images/{n}.png" for n in range(3)])
    (root / "train.csv").write_text("id_code,diagnosis\n0,1\n1,0\n2,1\n")
    with pytest.raises(DataError, match=r"but tables: train\.csv"):
        open_dataset(root)
    table = open_dataset(root / "train.csv", options=ReadOptions(root=str(root / "train_images")))
    assert table.labels == ("0", "1")
