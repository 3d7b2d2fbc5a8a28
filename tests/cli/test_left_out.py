"""Images of formats that are not read are counted and said by every command, and never silently dropped."""

import numpy as np
import pytest
from PIL import Image

from inception.data.formats import left_out_reason

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.fixture
def photos(tmp_path):
    """Two classes of ten PNG files each, and CR2 files beside them, as many as asked for."""

    def make(raw: int):
        rng = np.random.default_rng(0)
        for label in ("cat", "dog"):
            (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
            for number in range(10):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
        for number in range(raw):
            (tmp_path / "photos" / "cat" / f"{number}.CR2").write_bytes(HEIC)
        (tmp_path / "photos" / "readme.txt").write_text("about")
        return str(tmp_path / "photos")

    return make


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("a/IMG_1.CR2", "camera RAW"),
        ("a/x.nef", "camera RAW"),
        ("a/x.psd", "Photoshop"),
        ("a/x.jxl", "JPEG XL"),
        ("a/x.PDF", "PDF"),
        ("a/x.mp4", "video"),
        ("a/x.dcm", "DICOM"),
        ("a/readme.txt", None),
        ("a/x.json", None),
        ("a/x.png", None),
        ("a/x", None),
    ],
)
def test_what_is_meant_as_an_image(name, word):
    reason = left_out_reason(name)
    assert (reason is None) == (word is None)
    assert word is None or (reason.startswith(word) and "not read: " in reason)


def test_check_finds_them(photos, inception):
    told = inception("check", photos(3))
    assert told.code == 1
    assert "3 image(s) left out: camera RAW, not read" in told.err
    assert "Nothing to put right." not in told.err
    assert inception("check", photos(3), "--json").json()["left_out"].keys() == {left_out_reason("x.cr2")}


def test_without_them_there_is_nothing_to_put_right(photos, inception):
    told = inception("check", photos(0))
    assert told.code == 0
    assert "Nothing to put right." in told.err


def test_train_and_evaluate_count_them_and_refuse_many(photos, inception, tmp_path):
    options = ["--model", "lenet5", "--epochs", "1", "--image-size", "32", "--kernels", "no"]
    out = tmp_path / "run"
    trained = inception("train", photos(2), *options, "-o", out, "--json")
    assert "left out: 2 of 22 (camera RAW, not read" in trained.err
    assert list(trained.json()["left_out"].values()) == [2]
    measured = inception("evaluate", out / "bundle", photos(2), "--json")
    assert list(measured.json()["left_out"].values()) == [2]

    many = photos(9)
    refused = inception("train", many, *options, "-o", tmp_path / "other")
    assert refused.code == 1
    assert "9 of 29 (camera RAW" in refused.err
    assert "--allow-left-out" in inception("evaluate", out / "bundle", many).err
    assert inception("evaluate", out / "bundle", many, "--allow-left-out", "--json").code == 0
    answered = inception("predict", out / "bundle", many, "--json")
    assert answered.code == 1
    rows = answered.lines()
    assert len(rows) == 29
    assert sum("camera RAW, not read" in row.get("error", "") for row in rows) == 9
