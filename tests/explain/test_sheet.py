"""Attribution sheets: means and intervals over images, and the page."""

import re

import pytest
from PIL import Image

from inception.explain.sheet import gain_text, random_means, summarize, write_sheet
from inception.explain.trust import Curves, mean_interval


def record(path, method, share, random=(0.6, 0.3)):
    found = Curves(deletion=(1.0, share), insertion=(share, 1.0))
    levels = [{"down_to": "classifier", "spearman": share}, {"down_to": "conv1", "spearman": 0.0}]
    return {"path": path, "method": method, "trust": found.to_dict(random), "randomised": levels}


RECORDS = [
    record("a", "cam", 0.0), record("a", "other", 0.8), record("b", "cam", 0.4, (0.8, 0.5)),
    record("b", "other", 0.8, (0.8, 0.5)),
]  # fmt: skip


def test_means_and_intervals():
    cam, other = summarize(RECORDS, seed=3)
    assert (cam.method, cam.images, other.method) == ("cam", 2, "other")
    assert cam.deletion == pytest.approx((0.5 + 0.7) / 2)
    assert cam.insertion == pytest.approx((0.5 + 0.7) / 2)
    assert cam.deletion_gain == mean_interval([0.6 - 0.5, 0.8 - 0.7], 3)
    assert cam.insertion_gain == mean_interval([0.5 - 0.3, 0.7 - 0.5], 3)
    assert cam.likeness == (("classifier", pytest.approx(0.2)), ("conv1", 0.0))
    assert random_means(RECORDS) == (pytest.approx(0.7), pytest.approx(0.4))
    plain = [{key: value for key, value in item.items() if key != "randomised"} for item in RECORDS]
    assert summarize(plain)[0].likeness == ()
    assert gain_text((0.11, -0.03, 0.2)) == "+0.110 (-0.030 to +0.200)"


def test_the_page_is_one_safe_file_in_two_languages(tmp_path):
    picture = Image.new("RGB", (64, 64), "red")
    rows = [[(picture, "<b>cat\n97%  a.png"), (picture, "deletion 0.1\ninsertion 0.9"), (picture, "")]] * 2
    page = tmp_path / "sheet.html"
    arguments = {"title": "<title>", "details": {"<k>": "<script>"}}
    write_sheet(page, rows, ("image", "cam", "other"), RECORDS, **arguments)
    text = page.read_text("utf-8")
    assert text.count("<script>") == 1
    assert "<b>cat" not in text and "&lt;b&gt;cat" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert text.count("<figure>") == 6
    assert "random map" in text and "+0.100" in text
    assert text.count('lang="en"') - 1 == text.count('lang="zh-CN"')
    write_sheet(page, rows, ("image", "cam", "other"), [{"path": "a", "method": "cam"}], **arguments)
    assert "random map" not in page.read_text("utf-8")
