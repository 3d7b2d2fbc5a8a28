"""One folder with every fault, each of which must be reported, and nothing else."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from inception.data.check import check_dataset
from inception.data.decode import decode_image
from inception.data.sources import open_dataset
from inception.errors import DataError, UsageError


@pytest.fixture
def faulty(make_tree, picture_file) -> Path:
    root = make_tree(
        f"{split}/{label}/{n}.png" for split in ("train", "test") for label in "ab" for n in range(8)
    )
    train, test = root / "train", root / "test"
    (train / "a" / "cut.png").write_bytes(picture_file(900)[:-300])
    (train / "a" / "empty.jpg").write_bytes(b"")
    (train / "a" / "text.jpg").write_bytes(b"not an image")
    shutil.copy(train / "a" / "0.png", train / "a" / "twin.png")
    shutil.copy(train / "a" / "1.png", test / "a" / "leak.png")
    Image.open(train / "b" / "2.png").save(train / "a" / "other label.bmp")
    (train / "b" / "really.jpg").write_bytes(picture_file(901, "PNG"))
    (train / "b" / "small.png").write_bytes(picture_file(902, "PNG", (31, 40)))
    bright = ImageEnhance.Brightness(decode_image((train / "b" / "3.png").read_bytes())).enhance(1.01)
    bright.save(test / "b" / "brighter.png")
    Image.new("CMYK", (64, 64), (10, 20, 30, 40)).save(train / "b" / "ink.jpg")
    (root / "notes.txt").write_text("x")
    (train / "c").mkdir()
    return root


def groups(found) -> set[frozenset[str]]:
    return {frozenset(member.path for member in group) for group in found}


def test_every_fault_is_reported(faulty):
    report = check_dataset(faulty)
    assert {(item.path, item.kind) for item in report.unreadable} == {
        ("train/a/cut.png", "truncated"),
        ("train/a/empty.jpg", "empty"),
        ("train/a/text.jpg", "format"),
    }
    assert all(item.path in item.message for item in report.unreadable)
    twin = frozenset({"train/a/0.png", "train/a/twin.png"})
    leak = frozenset({"train/a/1.png", "test/a/leak.png"})
    conflict = frozenset({"train/b/2.png", "train/a/other label.bmp"})
    assert groups(report.duplicates) == {twin, leak, conflict}
    assert groups(report.leakage) - {twin, conflict} == {leak}
    assert groups(report.conflicts) == {conflict}
    near = frozenset({"train/b/3.png", "test/b/brighter.png"})
    assert groups(report.near_duplicates) == groups(report.near_leakage) == {near}
    assert [(item.path, item.promised, item.found) for item in report.mislabelled] == [
        ("train/b/really.jpg", "JPEG", "PNG")
    ]
    assert [(item.path, item.width, item.height) for item in report.tiny] == [("train/b/small.png", 31, 40)]
    assert report.strays == ("notes.txt",)
    assert report.empty_folders == ("train/c/",)
    assert report.modes == {"RGB": 38, "CMYK": 1}
    assert report.formats == {"PNG": 37, "BMP": 1, "JPEG": 1}
    assert report.sizes is not None
    assert (report.sizes.width, report.sizes.height) == ((31, 40, 64), (36, 36, 64))
    assert report.images == 42
    assert report.balance["test"] == {"a": 9, "b": 9}
    assert not report.ok
    assert len(report.problems) == 7


def test_a_clean_set_is_ok(make_tree):
    report = check_dataset(make_tree(f"{label}/{n}.png" for label in "ab" for n in range(10)))
    assert report.ok
    assert report.problems == ()
    assert report.imbalance == 1.0
    assert report.balance == {"train": {"a": 8, "b": 8}, "val": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}}


def test_the_report_is_plain_json(faulty):
    content = json.loads(json.dumps(check_dataset(faulty).to_dict()))
    assert content["ok"] is False
    assert content["images"] == 42
    assert content["conflicts"][0][0].keys() == {"path", "label", "split"}
    assert content["sizes"]["width"] == [31, 40, 64]
    assert len(content["problems"]) == 7


def test_progress_is_told_in_order(faulty):
    seen: list[tuple[int, int]] = []
    check_dataset(faulty, workers=3, progress=lambda *at: seen.append(at))
    assert seen == [(done, 42) for done in range(1, 43)]


def test_the_number_of_threads_changes_nothing(faulty):
    assert check_dataset(faulty, workers=1) == check_dataset(faulty, workers=8)


def test_limits_are_arguments(faulty):
    assert check_dataset(faulty, min_size=8).tiny == ()
    assert len(check_dataset(faulty, min_size=41).tiny) == 38
    strict = check_dataset(faulty, max_pixels=2000)
    assert ("train/b/ink.jpg", "too_large") in {(item.path, item.kind) for item in strict.unreadable}


def test_a_class_missing_from_the_test_images_is_named(make_tree):
    names = [f"train/{label}/{n}.png" for label in "abc" for n in range(4)]
    report = check_dataset(make_tree([*names, "test/a/9.png", "test/b/9.png"]))
    assert report.absent == ("c",)
    assert report.imbalance == pytest.approx(1.0)


def test_a_file_that_vanishes_after_opening_is_reported(make_tree):
    root = make_tree(f"{label}/{n}.png" for label in "ab" for n in range(4))
    dataset = open_dataset(root)
    (root / "a" / "1.png").unlink()
    assert [(item.path, item.kind) for item in check_dataset(dataset).unreadable] == [("a/1.png", "missing")]


def test_a_set_of_which_nothing_can_be_read(make_tree):
    root = make_tree(["a/1.png", "b/1.png"])
    for path in root.rglob("*.png"):
        path.write_bytes(b"gone")
    report = check_dataset(root)
    assert len(report.unreadable) == 2
    assert report.sizes is None
    assert json.dumps(report.to_dict())


def test_what_cannot_be_opened_is_an_error(tmp_path):
    with pytest.raises(UsageError):
        check_dataset("nothing-of-the-kind")
    (tmp_path / "x.zip").write_bytes(b"rubbish")
    with pytest.raises(DataError):
        check_dataset(tmp_path / "x.zip")


def test_digits_are_clean_at_their_size():
    report = check_dataset("digits", min_size=8)
    assert report.ok
    assert report.modes == {"L": 1797}
    assert len(check_dataset("digits").tiny) == 1797


def test_known_faults_of_a_real_set(shared):
    report = check_dataset(shared / "data" / "flowers12.zip")
    assert groups(report.duplicates) == {
        frozenset({"train/iris/image_0422.jpg", "train/iris/image_0469.jpg"})
    }
    assert report.leakage == ()
    assert report.strays == ("README.txt",)


def test_a_folder_of_hostile_files_is_reported_not_fatal(shared, tmp_path):
    with zipfile.ZipFile(shared / "data" / "bad-images.zip") as archive:
        for number, name in enumerate(archive.namelist()):
            path = tmp_path / "odd" / ("a" if number % 2 else "b") / f"{number}{Path(name).suffix.lower()}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))
    report = check_dataset(tmp_path / "odd")
    readable = sum(report.formats.values())
    assert readable + len(report.unreadable) == report.images > 0
    assert readable > 0
    assert {item.kind for item in report.unreadable} <= {
        "empty",
        "format",
        "truncated",
        "corrupt",
        "too_large",
    }
    assert json.dumps(report.to_dict())


@pytest.mark.parametrize("fast", [True, False])
def test_a_jpeg_that_lacks_data_is_a_finding(tmp_path, monkeypatch, fast):
    from inception.data import jpeg_data

    if not fast:
        monkeypatch.setattr(jpeg_data, "simplejpeg", None)
    elif jpeg_data.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(3):
            noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / label / f"{number}.jpg", quality=90)
    whole = (tmp_path / "a" / "0.jpg").read_bytes()
    (tmp_path / "a" / "0.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    report = check_dataset(tmp_path)
    assert report.incomplete == ("a/0.jpg",)
    assert any("lack data" in problem for problem in report.problems)
    assert not report.unreadable


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
def test_links_to_nothing_and_pipes_are_listed(make_tree):
    root = make_tree([f"{label}/{number}.png" for label in "ab" for number in range(6)])
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "b" / "pipe.png")
    report = check_dataset(root)
    assert set(*report.left_out.values()) == {"a/gone.png", "b/pipe.png"}
    assert not report.ok
