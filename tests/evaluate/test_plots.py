"""The pictures can be drawn for every size of problem, and their SVG fits into a page."""

import io
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from inception.errors import UsageError
from inception.evaluate import plots
from inception.evaluate.metrics import evaluate_logits


def rows(epochs: int) -> list[dict]:
    return [
        {"epoch": epoch, "train_loss": 1 / epoch, "train_top1": 0.5, "learning_rate": 0.1**epoch}
        for epoch in range(1, epochs + 1)
    ]


def texts(svg: str) -> list[str]:
    return [
        element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    ]


def test_importing_does_not_import_matplotlib_nor_drawing_pyplot():
    code = """
import sys, inception.evaluate.report, inception.evaluate.plots as plots
print("matplotlib" in sys.modules)
plots.to_svg(plots.training_curves([{"epoch": 1, "train_loss": 1.0}]))
print("matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_drawing_leaves_the_settings_of_matplotlib_alone(make_evaluation):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plots.to_svg(plots.confusion_heatmap(make_evaluation()))
    plots.to_png(plots.training_curves(rows(2)))
    assert dict(mpl.rcParams) == before


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'inception\[report\]'"):
        plots.training_curves(rows(1))


def test_curves_become_a_png():
    picture = Image.open(io.BytesIO(plots.to_png(plots.training_curves(rows(5)), dpi=50)))
    assert picture.format == "PNG"
    assert picture.size == (480, 145)
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_curves_take_the_last_row_of_an_epoch_and_leave_gaps_out():
    history = [
        {"epoch": 1, "train_loss": 9.0},
        {"epoch": 2, "train_loss": float("nan"), "val_loss": 2.0},
        {"epoch": 1, "train_loss": 3.0, "val_loss": None},
        {"epoch": 3, "train_loss": 1.0},
    ]
    loss, top1, rate = plots.training_curves(history).axes
    assert [line.get_xydata().tolist() for line in loss.lines] == [[[1, 3], [3, 1]], [[2, 2]]]
    assert not top1.lines
    assert not rate.lines


def test_curves_of_one_epoch_and_of_none():
    plots.to_svg(plots.training_curves(rows(1)))
    with pytest.raises(UsageError, match="no training metrics"):
        plots.training_curves([])


@pytest.mark.parametrize("classes", [1, 2, 12, 20, 21, 100])
def test_heatmap_of_any_readable_size(make_evaluation, classes):
    evaluation = make_evaluation(classes, n=3 * classes)
    words = texts(plots.to_svg(plots.confusion_heatmap(evaluation)))
    assert words.count("class 0") == 2
    numbers = [word for word in words if word.isdigit()]
    assert sum(map(int, numbers)) == (evaluation.n if classes <= 20 else 0)


def test_heatmap_of_chosen_classes_and_of_too_many(make_evaluation):
    evaluation = make_evaluation(101, n=300)
    with pytest.raises(UsageError, match="1 to 100 classes, not 101"):
        plots.confusion_heatmap(evaluation)
    words = texts(plots.to_svg(plots.confusion_heatmap(evaluation, [7, 3])))
    assert [word for word in words if word.startswith("class ")] == ["class 7", "class 3"] * 2


def test_all_pictures_in_both_languages_are_plain_svg_elements(make_evaluation):
    evaluation = make_evaluation()
    for language, word in (("en", "answered class"), ("zh", "预测类别")):
        svg = plots.to_svg(plots.confusion_heatmap(evaluation, language=language))
        assert word in texts(svg)
        plots.to_svg(plots.training_curves(rows(3), language=language))
        reliability = texts(plots.to_svg(plots.reliability_diagram(evaluation, language=language)))
        assert {"confidence", "置信度"} & set(reliability)
        bars = texts(plots.to_svg(plots.class_bars(evaluation, language=language)))
        assert "class 3" in bars
        assert svg.startswith("<svg")
        assert svg.endswith("</svg>")
        assert "metadata" not in svg


def test_svg_takes_the_colours_of_the_page_and_is_reproducible(make_evaluation):
    evaluation = make_evaluation()
    one, two = (plots.to_svg(plots.reliability_diagram(evaluation), salt="same") for _ in range(2))
    assert one == two
    assert "currentColor" in one
    assert "var(--blue, #0072b2)" in one
    assert plots.INK not in one


def test_names_in_two_pictures_do_not_clash(make_evaluation):
    evaluation = make_evaluation()
    names = []
    for salt in ("a", "b"):
        tree = ElementTree.fromstring(plots.to_svg(plots.reliability_diagram(evaluation), salt=salt))
        names.append({element.get("id") for element in tree.iter() if element.get("id")})
    assert names[0]
    assert not names[0] & names[1]


@pytest.mark.parametrize("label", ["雏菊", "$x_1$ costs $", "<b> & 'q' -->", "two\nlines", "", "é" * 80])
def test_any_label_stays_text(label):
    evaluation = evaluate_logits(np.eye(2), np.array([0, 1]), [label, "other"])
    words = texts(plots.to_svg(plots.confusion_heatmap(evaluation)))
    expected = "é" * 21 + "…" if len(label) > 40 else label.replace("\n", " ")
    assert words.count(expected) == (2 if expected else 0)
    plots.to_svg(plots.class_bars(evaluation))


def test_bars_show_the_worst_classes_that_occur():
    logits = np.eye(4)[[0, 1, 1, 2, 0]]
    evaluation = evaluate_logits(logits, np.array([0, 0, 1, 2, 2]), ["a", "b", "c", "never"])
    words = texts(plots.to_svg(plots.class_bars(evaluation, limit=2)))
    assert [word for word in words if word in {"a", "b", "c", "never"}] == ["a", "c"]
