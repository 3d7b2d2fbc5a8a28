"""`inception atlas` as users run it."""

import pytest
from PIL import Image

from inception.cli.atlas import LAYOUT_NAMES
from inception.explain.atlas import LAYOUTS

QUICK = (
    "--steps", 2, "--device", "cpu", "--precision", "float32", "--layout", "pca", "--grid", 3, "--least", 3,
    "--places", 6, "--layer", "mixed3a",
)  # fmt: skip


def test_a_page_and_a_picture_that_a_second_run_repeats(inception, tiny_path, shapes, tmp_path):
    page = tmp_path / "atlas.html"
    arguments = ("atlas", tiny_path, shapes / "test", "-o", page, *QUICK, "--json")
    outcome = inception(*arguments)
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert (found["images"], found["places"], found["layer"]) == (12, 72, "mixed3a")
    assert len(list((tmp_path / "atlas-pictures").rglob("*.png"))) == found["cells"] > 1
    with Image.open(found["picture"]) as sheet:
        assert sheet.width > 1000
    text = page.read_text("utf-8")
    assert inception(*arguments).code == 0
    assert page.read_text("utf-8") == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "x.png"), "the output is an .html"),
        (("-o", "x.html", "--layer", "mixed9"), "no layer is called"),
        (("-o", "x.html", "--layout", "circle"), "circle"),
        (("-o", "x.html", "--least", "500"), "no cell holds 500 points"),
        (("-o", "x.html", "--size", "8"), "--size"),
    ],
)
def test_wrong_requests(inception, tiny_path, shapes, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    outcome = inception("atlas", tiny_path, shapes / "test", "--layout", "pca", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_and_missing_images(inception, tiny_path, tmp_path, monkeypatch):
    monkeypatch.setattr("inception.explain.atlas.find_spec", lambda name: None)
    outcome = inception("atlas", tiny_path, tmp_path, "-o", tmp_path / "x.html")
    assert outcome.code == 2
    assert "pip install 'inception[atlas]'" in outcome.err
    assert inception("atlas", tiny_path, tmp_path, "-o", tmp_path / "x.html", "--layout", "pca").code == 1
    assert LAYOUT_NAMES == LAYOUTS
