"""Tables with several labels an image: both forms, splits, checks, what is refused."""

import pickle
from dataclasses import replace

import pytest
import torch
from PIL import Image

from inception.data.check import check_dataset
from inception.data.loader import Loader
from inception.data.preprocess import Preprocess
from inception.data.sources import align_labels, open_dataset
from inception.errors import DataError


def write_table(folder, header: str, rows: list[str], name: str = "set.csv"):
    folder.mkdir(exist_ok=True)
    for index in range(len(rows)):
        Image.new("RGB", (40, 40), (index * 9 % 256, 80, 160)).save(folder / f"{index}.png")
    lines = [header, *(f"{index}.png,{row}" for index, row in enumerate(rows))]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


ROWS = ["train,cat;dog", "train,dog", "train,", "val,cat | bird", "test,bird;dog", "train,bird"]


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "data", "path,split,labels", ROWS)


def test_a_column_of_labels(table):
    dataset = open_dataset(table)
    assert dataset.multilabel
    assert dataset.labels == ("bird", "cat", "dog")
    named = {sample.path: dataset.names_of(sample) for sample in dataset.samples}
    assert named == {
        "0.png": ("cat", "dog"),
        "1.png": ("dog",),
        "2.png": (),
        "3.png": ("bird", "cat"),
        "4.png": ("bird", "dog"),
        "5.png": ("bird",),
    }


def test_columns_of_zero_and_one_mean_the_same(table, tmp_path):
    names = ("cat", "dog", "bird")
    rows = []
    for row in ROWS:
        split, labels = row.split(",")
        present = {label.strip() for label in labels.replace("|", ";").split(";")}
        rows.append(",".join([split, *(str(int(name in present)) for name in names)]))
    flags = write_table(tmp_path / "flags", "path,split,cat,dog,bird", rows)
    ours, theirs = open_dataset(flags), open_dataset(table)
    assert ours.fingerprint == theirs.fingerprint
    assert ours.samples == theirs.samples


def test_the_loader_gives_rows_of_zero_and_one(table):
    dataset = open_dataset(table)
    loader = Loader(dataset, dataset.split("train"))
    [batch] = loader.evaluation_batches(Preprocess(height=32, width=32), 10)
    assert batch.targets.dtype == torch.float32
    assert batch.targets.tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_the_set_survives_pickling_and_another_order_of_labels(table):
    dataset = open_dataset(table)
    assert replace(pickle.loads(pickle.dumps(dataset)), store=dataset.store) == dataset
    aligned = align_labels(dataset, ("dog", "fish", "cat", "bird"))
    assert [aligned.names_of(sample) for sample in aligned.samples] == [
        tuple(sorted(dataset.names_of(sample), key=("dog", "cat", "bird").index))
        for sample in dataset.samples
    ]
    with pytest.raises(DataError, match="dog"):
        align_labels(dataset, ("cat", "bird"))


def test_an_automatic_split_gives_rare_labels_to_every_part(tmp_path):
    rows = ["common"] * 40 + ["common;rare"] * 10
    dataset = open_dataset(write_table(tmp_path / "data", "path,labels", rows))
    for split in ("train", "val", "test"):
        found = {name for sample in dataset.split(split) for name in dataset.names_of(sample)}
        assert found == {"common", "rare"}, split


def test_check_counts_every_label(table):
    report = check_dataset(table)
    assert report.balance["train"] == {"bird": 1, "cat": 1, "dog": 2}
    assert report.absent == ("cat",)


def test_one_label_an_image_stays_as_it_was(tmp_path):
    dataset = open_dataset(write_table(tmp_path / "data", "path,label", ["a;b", "c", "a;b", "c"]))
    assert not dataset.multilabel
    assert dataset.labels == ("a;b", "c")
    assert all(sample.labels == () for sample in dataset.samples)


@pytest.mark.parametrize(
    "header, rows, message",
    [
        ("path,cat,dog", ["1,0", "0,2"], r"line 3, has '2' in the label column 'dog'"),
        ("path,labels", ["", ""], "no labels"),
        ("path,split,labels", ["train,a", "val,b"], "classes in val or test that train lacks: 'b'"),
        ("path,height,width", ["20,30", "30,20"], "column of 0 and 1 for each label"),
        ("path,labels,split", ["a,training", "a,later"], "train, val nor test"),
    ],
)
def test_what_is_refused_is_named(tmp_path, header, rows, message):
    with pytest.raises(DataError, match=message):
        open_dataset(write_table(tmp_path / "data", header, rows), val_fraction=0.0)
