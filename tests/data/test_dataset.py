"""The data set value itself: splits, fingerprint, pickling, and labels matched by name."""

import json
import pickle
import shutil

import pytest

from inception.data.dataset import Record, Sample, build_dataset, natural_key
from inception.data.sources import align_labels, open_dataset
from inception.data.stores import MemoryStore
from inception.errors import DataError

IMAGENET = [
    "n01440764 tench, Tinca tinca",
    "n02119789 kit fox, Vulpes macrotis",
    "n03126707 crane",
    "n02012849 crane",
]


def dataset_of(*labels: str, split: str = "test"):
    files = {f"{number}.png": bytes([number]) for number, _ in enumerate(labels)}
    records = [Record(f"{number}.png", label, split, f"{number}.png") for number, label in enumerate(labels)]
    return build_dataset("set", records, MemoryStore(files, "memory"))


def test_splits_of_a_data_set():
    dataset = dataset_of("a", "b", "a")
    assert dataset.splits == ("test",)
    assert dataset.split("train") == ()
    assert dataset.split("test") == dataset.split("all") == dataset.samples
    assert dataset.samples[1] == Sample("1.png", 1, "test")
    assert dataset.read(dataset.samples[2]) == b"\x02"
    assert dataset.evaluation_split() == "test"
    assert dataset_of("a", split="val").evaluation_split() == "val"


def test_a_data_set_travels_whole_and_small(make_tree):
    root = make_tree([f"{label}/{number:03}.png" for label in "ab" for number in range(200)])
    dataset = open_dataset(root)
    packed = pickle.dumps(dataset)
    copy = pickle.loads(packed)
    assert (copy.samples, copy.labels, copy.fingerprint, copy.splits) == (
        dataset.samples,
        dataset.labels,
        dataset.fingerprint,
        dataset.splits,
    )
    assert copy.read(copy.samples[5]) == dataset.read(dataset.samples[5])
    assert len(packed) < 40 * len(dataset.samples) + 1000


def test_the_fingerprint_follows_what_matters(make_tree):
    root = make_tree([f"{label}/{number}.png" for label in "ab" for number in range(9)])
    first = open_dataset(root).fingerprint
    assert len(first) == 64
    assert open_dataset(root).fingerprint == first
    assert open_dataset(root, seed=1).fingerprint != first
    (root / "stray.txt").write_text("x")
    assert open_dataset(root).fingerprint == first
    with (root / "a" / "3.png").open("ab") as stream:
        stream.write(b"more")
    changed = open_dataset(root).fingerprint
    assert changed != first
    shutil.move(root / "a" / "3.png", root / "b" / "33.png")
    assert open_dataset(root).fingerprint not in (first, changed)


def test_natural_order():
    names = ["img12", "img2", "Img1", "2", "10", "1a", "", "9" * 40]
    assert sorted(names, key=natural_key) == ["", "1a", "2", "10", "9" * 40, "Img1", "img2", "img12"]


def targets(dataset, labels) -> list[int]:
    aligned = align_labels(dataset, labels)
    assert aligned.labels == tuple(labels)
    return [sample.label for sample in aligned.samples]


def test_targets_follow_the_names_of_a_bundle():
    dataset = dataset_of("dog", "cat", "dog")
    assert dataset.labels == ("cat", "dog")
    assert targets(dataset, ["ant", "dog", "bee", "cat"]) == [1, 3, 1]


@pytest.mark.parametrize(
    "name", ["n02119789", "kit fox, Vulpes macrotis", IMAGENET[1], "n02119789 kit fox", "n02119789_kit_fox"]
)
def test_synset_labels_are_found_by_id_by_text_or_whole(name):
    assert targets(dataset_of(name), IMAGENET) == [1]


def test_a_plain_synset_list_takes_longer_names():
    assert targets(dataset_of("n02119789 kit fox"), ["n01440764", "n02119789"]) == [1]


def test_ambiguous_and_unknown_names_are_listed_with_near_ones():
    with pytest.raises(DataError, match="'crane'"):
        align_labels(dataset_of("crane"), IMAGENET)
    assert targets(dataset_of("n02012849"), IMAGENET) == [3]
    with pytest.raises(DataError, match=r"'kittens' \(near 'kitten'\)") as caught:
        align_labels(dataset_of("kittens", *[f"zz{number}" for number in range(9)]), ["kitten", "puppy"])
    assert "and 5 more" in str(caught.value)


def test_equal_labels_of_a_bundle_do_no_harm():
    assert targets(dataset_of("cat"), ["dummy", "dummy", "cat", "dummy"]) == [2]


def test_names_with_odd_bytes_do_no_harm(make_tree):
    root = make_tree(["a/1.png", "b/1.png"])
    odd = root / "a" / b"\xff\xfe.png".decode(errors="surrogateescape")
    try:
        shutil.copy(root / "a" / "1.png", odd)
    except OSError:
        pytest.skip("this file system refuses such names")
    dataset = open_dataset(root)
    assert len(dataset.samples) == 3
    assert json.dumps([sample.path for sample in dataset.samples])
    assert len(pickle.loads(pickle.dumps(dataset)).samples) == 3
