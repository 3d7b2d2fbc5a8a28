"""The report is one valid page that loads nothing and believes nobody."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from inception.errors import ImageError, UsageError
from inception.evaluate.metrics import evaluate_logits
from inception.evaluate.report import thumbnail, write_report

VOID = {"meta", "img", "br", "wbr"}
HISTORY = [{"epoch": 1, "train_loss": 1.0}, {"epoch": 2, "train_loss": 0.5}]


class Page(HTMLParser):
    """Collects elements and texts; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def picture(index: int) -> bytes:
    return thumbnail(Image.new("RGB", (300, 200), (index % 255, 90, 90)))


def write(path, evaluation, **changes) -> str:
    arguments = {
        "title": "Flowers",
        "images": picture,
        "paths": [f"test/{index}.jpg" for index in range(evaluation.n)],
        "details": {"Model": "googlenet"},
        "history": None,
    }
    write_report(path, evaluation, **(arguments | changes))
    return path.read_text()


@pytest.mark.parametrize("classes", [2, 12])
def test_page_is_well_formed_and_complete(tmp_path, make_evaluation, classes):
    evaluation = make_evaluation(classes, n=100)
    page = Page(write(tmp_path / "report.html", evaluation, history=HISTORY))
    sections = [element["id"] for element in page.all("section")]
    assert sections == [
        "summary",
        "details",
        "training",
        "confusion",
        "classes",
        "calibration",
        "mistakes",
        "correct",
    ]
    assert [link["href"] for link in page.all("a")] == [f"#{name}" for name in sections]
    assert len(page.all("svg")) == 8
    assert len(page.all("img")) == min(24, len(evaluation.mistakes)) + 12
    assert f"{100 * evaluation.top1:.1f}%" in page.texts
    assert ("Top-5 accuracy" in page.texts) == (classes > 5)
    assert not page.all("details")


def test_thousand_classes_collapse(tmp_path, make_evaluation):
    evaluation = make_evaluation(1000, n=1500)
    html = write(tmp_path / "report.html", evaluation)
    page = Page(html)
    assert len(page.all("details")) == 1
    assert "Confusion matrix" not in html
    assert "Most confused pairs" in html
    assert len(html) < 3_000_000


def test_nothing_is_loaded_and_only_its_own_script_may_run(tmp_path, make_evaluation):
    html = write(tmp_path / "report.html", make_evaluation(), history=HISTORY)
    page = Page(html)
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), value
        assert not [name for name in attributes if name.startswith("on")]
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    policy = page.all("meta")[1]["content"]
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_everything_from_outside_is_escaped(tmp_path):
    bad = "</title></script><script>alert(1)</script><img src=x onerror='a' \"b\" & -->"
    evaluation = evaluate_logits(np.eye(2)[[0, 1, 1]], np.array([0, 1, 0]), [bad + "0", bad + "1"])
    html = write(
        tmp_path / "report.html", evaluation, title=bad, paths=[bad] * 3, details={bad: bad}, history=HISTORY
    )
    page = Page(html)
    assert html.count("<script>") == 1
    assert "onerror" not in {name for _, attributes in page.elements for name in attributes}
    assert len(page.all("img")) == 3
    assert bad in page.texts


def test_both_languages_say_equally_much(tmp_path, make_evaluation):
    html = write(tmp_path / "report.html", make_evaluation(12), history=HISTORY)
    spans = [element["lang"] for element in Page(html).all("span") if "lang" in element]
    assert spans.count("en") == spans.count("zh-CN") > 30
    assert "召回率" in html
    assert "navigator.language" in html


def test_unreadable_pictures_leave_an_empty_frame(tmp_path, make_evaluation):
    def broken(index: int) -> bytes:
        if index % 2:
            raise ImageError("truncated", "cut off")
        raise FileNotFoundError(index)

    page = Page(write(tmp_path / "report.html", make_evaluation(), images=broken))
    assert not page.all("img")
    assert "cannot be read" in page.texts


def test_all_right_and_all_wrong(tmp_path):
    right = evaluate_logits(np.eye(3), np.arange(3), ["a", "b", "c"])
    html = write(tmp_path / "right.html", right)
    assert 'id="mistakes"' not in html
    assert "No image was answered wrongly." in html
    wrong = evaluate_logits(np.eye(3), np.array([1, 2, 0]), ["a", "b", "c"])
    assert 'id="correct"' not in write(tmp_path / "wrong.html", wrong, details={})


def test_classes_left_out_are_counted(tmp_path):
    evaluation = evaluate_logits(np.eye(5)[[0, 1]], np.array([0, 1]), list("abcde"))
    assert "3 classes are not listed" in write(tmp_path / "report.html", evaluation)


def test_failure_keeps_the_old_report(tmp_path, make_evaluation):
    path = tmp_path / "report.html"
    path.write_text("old")

    def broken(index: int) -> bytes:
        raise RuntimeError(index)

    with pytest.raises(RuntimeError):
        write(path, make_evaluation(), images=broken)
    with pytest.raises(UsageError, match="as many paths"):
        write(path, make_evaluation(), paths=[])
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P", "1"])
def test_thumbnail_of_large_images(mode):
    result = Image.open(io.BytesIO(thumbnail(Image.new(mode, (1000, 500)), size=100)))
    assert (result.format, result.size, result.mode) == ("JPEG", (100, 50), "RGB")


def test_thumbnail_enlarges_small_images_by_whole_pixels():
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    result = Image.open(io.BytesIO(thumbnail(image, size=100)))
    assert (result.format, result.size) == ("PNG", (96, 96))
    assert np.array_equal(np.asarray(result)[::12, ::12, 0], np.asarray(image))


def test_thumbnail_does_not_change_the_image_given():
    image = Image.new("RGB", (300, 300))
    thumbnail(image, size=50)
    assert image.size == (300, 300)


def test_bootstrap_intervals_stand_below_loss_and_balanced_accuracy(tmp_path, make_evaluation):
    evaluation = make_evaluation()
    intervals = {"loss": (0.1234, 0.5678), "balanced_accuracy": (0.25, 0.75)}
    with_them = write(tmp_path / "page.html", evaluation, intervals=intervals)
    Page(with_them)
    assert "0.123 – 0.568" in with_them
    assert "25.0% – 75.0%" in with_them
    without = write(tmp_path / "plain.html", evaluation)
    assert "0.123 – 0.568" not in without
