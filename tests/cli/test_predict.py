"""`inception predict`: one answer an image, in order, in three forms."""

import csv
import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from shapes import COLOURS, shape_picture

from inception.runtime.loading import load


@pytest.fixture
def folder(tmp_path):
    for index, label in enumerate(COLOURS):
        shape_picture(label, index).save(tmp_path / f"{label}.png")
    return tmp_path


def test_json_lines_are_the_fixed_interface(inception, tiny_path, folder):
    paths = [folder / f"{label}.png" for label in ("violet", "amber", "jade")]
    outcome = inception("predict", tiny_path, *paths, "--json", "--device", "cpu")
    assert outcome.code == 0
    answers = outcome.lines()
    assert [answer["path"] for answer in answers] == [str(path) for path in paths]
    expected = load(tiny_path, "cpu").predict(paths)
    for answer, other in zip(answers, expected, strict=True):
        assert answer.keys() == {"path", "top"}
        assert answer == other.to_dict()
        assert [score.keys() for score in answer["top"]] == [{"label", "index", "probability"}] * 3
        probabilities = [score["probability"] for score in answer["top"]]
        assert probabilities == sorted(probabilities, reverse=True)


def test_a_bad_image_is_reported_in_its_row_and_the_exit_code_tells(inception, tiny_path, folder):
    (folder / "bad.png").write_bytes(b"no image")
    paths = [folder / "amber.png", folder / "bad.png", folder / "nowhere.png", folder / "jade.png"]
    outcome = inception("predict", tiny_path, *paths, "--json")
    assert outcome.code == 1
    answers = outcome.lines()
    assert [answer.keys() for answer in answers] == [
        {"path", "top"},
        {"path", "error"},
        {"path", "error"},
        {"path", "top"},
    ]
    assert [answer["path"] for answer in answers] == [str(path) for path in paths]
    assert inception("predict", tiny_path, folder / "bad.png").code == 1


def test_folders_archives_and_top(inception, tiny_path, folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.write(folder / "jade.png", "sub/jade.png")
    outcome = inception("predict", tiny_path, folder, tmp_path / "pictures.zip", "--json", "--top", "1")
    answers = outcome.lines()
    assert [os.path.basename(answer["path"]) for answer in answers] == [  # noqa: PTH119
        "amber.png",
        "jade.png",
        "violet.png",
        "jade.png",
    ]
    assert all(len(answer["top"]) == 1 for answer in answers)
    assert answers[1]["top"] == answers[3]["top"]


def test_a_list_on_standard_input(inception, tiny_path, folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{folder}/jade.png\n\n{folder}/nowhere.png\n"))
    outcome = inception("predict", tiny_path, "-", "--json")
    assert outcome.code == 1
    assert [answer["path"] for answer in outcome.lines()] == [f"{folder}/jade.png", f"{folder}/nowhere.png"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    empty = inception("predict", tiny_path, "-", "--json")
    assert (empty.code, empty.out) == (2, "")


def test_csv_has_the_same_columns_in_every_row(inception, tiny_path, folder):
    (folder / 'odd, "name".png').write_bytes(b"")
    outcome = inception("predict", tiny_path, folder, "--csv", "--top", "2")
    assert outcome.code == 1
    rows = list(csv.DictReader(io.StringIO(outcome.out)))
    assert list(rows[0]) == ["path", "label1", "probability1", "label2", "probability2", "error"]
    by_name = {row["path"].rsplit("/", 1)[1]: row for row in rows}
    assert by_name["jade.png"]["label1"] in COLOURS
    assert float(by_name["jade.png"]["probability1"]) >= float(by_name["jade.png"]["probability2"])
    assert by_name['odd, "name".png']["error"]
    assert by_name['odd, "name".png']["label1"] == ""
    assert inception("predict", tiny_path, folder, "--csv", "--json").code == 2


def test_the_table_names_every_image(inception, tiny_path, folder):
    (folder / "[bold]bad.png").write_bytes(b"")
    outcome = inception("predict", tiny_path, folder)
    assert outcome.code == 1
    for name in ("amber.png", "jade.png", "violet.png", "[bold]bad.png"):
        assert name in outcome.out
    assert "error:" in outcome.out


def test_unknown_needs_a_calibrated_bundle(inception, tiny_path, trained, folder):
    assert inception("predict", tiny_path, folder, "--unknown", "--json").code == 2
    outcome = inception("predict", trained.bundle, folder, "--unknown", "--json")
    assert outcome.code == 0
    assert {answer["top"][0]["label"] for answer in outcome.lines()} <= {*COLOURS, "unknown"}


@pytest.mark.parametrize(
    "options", [["--top", "0"], ["--batch-size", "0"], ["--device", "abacus"], ["--precision", "x"]]
)
def test_impossible_options(inception, tiny_path, folder, options):
    outcome = inception("predict", tiny_path, folder, *options)
    assert (outcome.code, outcome.out) == (2, "")


def test_a_damaged_bundle_is_one_sentence(inception, folder, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text("{")
    (tmp_path / "bundle" / "model.safetensors").write_bytes(b"")
    outcome = inception("predict", tmp_path / "bundle", folder)
    assert outcome.code == 1
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are no text")
@pytest.mark.parametrize("form, encoding", [("--json", "ascii"), ("--csv", "utf-8"), (None, "ascii")])
def test_names_that_the_terminal_cannot_show_stop_nothing(tiny_path, tmp_path, form, encoding):
    folder = tmp_path / "names"
    folder.mkdir()
    names = [b"ok.png", b"\xff\xfe.png", "玫瑰.png".encode()]
    for name in names:
        shape_picture("jade", 1).save(tmp_path / "picture.png")
        os.rename(tmp_path / "picture.png", os.path.join(os.fsencode(folder), name))  # noqa: PTH104, PTH118
    script = "from inception.cli.main import main; main()"
    command = [sys.executable, "-c", script, "predict", str(tiny_path), str(folder)]
    done = subprocess.run(
        command + ([form] if form else []),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert b"defect" not in done.stderr
    if form == "--json":
        paths = [json.loads(line)["path"] for line in done.stdout.splitlines()]
        assert sorted(os.fsencode(path).rsplit(b"/", 1)[1] for path in paths) == sorted(names)


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are no text")
def test_a_list_may_hold_names_that_are_no_text(tiny_path, tmp_path):
    shape_picture("jade", 1).save(tmp_path / "\udcff.png", "PNG")
    names = [os.fsencode(tmp_path / "\udcff.png"), b"a" * 300 + b".png", b"\xfe.png"]
    done = subprocess.run(
        [sys.executable, "-m", "inception", "predict", str(tiny_path), "-", "--json"],
        input=b"\n".join(names),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (1, b"")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [os.fsencode(answer["path"]) for answer in answers] == names
    assert ["top" in answer for answer in answers] == [True, False, False]


def test_output_is_written_apart_from_bad_inputs(inception, tiny_path, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"no image")
    output = tmp_path / "out" / "answers.jsonl"
    outcome = inception("predict", tiny_path, folder, "-o", output, "--top", "2", "--device", "cpu")
    assert (outcome.code, outcome.out) == (1, "")
    assert "3 images in" in outcome.err
    assert "1 without an answer in" in outcome.err
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    paths = sorted(folder / f"{label}.png" for label in COLOURS)
    expected = load(tiny_path, "cpu").predict(paths, top=2)
    assert [answer["path"] for answer in answers] == [str(path) for path in paths]
    assert [answer["top"][0]["label"] for answer in answers] == [other.label for other in expected]
    [bad] = [json.loads(line) for line in output.with_suffix(".errors.jsonl").read_text().splitlines()]
    assert bad["path"] == str(folder / "bad.png")
    again = inception("predict", tiny_path, folder, "-o", output)
    assert again.code == 2
    assert "exists already" in again.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("-o", "a.jsonl", "--json"), "exclude each other"),
        (("--engine", "ray"), "name a file with --output"),
        (("--workers", "2"), "name a file with --output"),
        (("-o", "a.jsonl", "--workers", "2"), "needs --engine ray"),
        (("-o", "a.txt"), "answers are written as"),
    ],
)
def test_options_that_do_not_fit_together(inception, tiny_path, folder, options, sentence):
    outcome = inception("predict", tiny_path, folder, *options)
    assert outcome.code == 2
    assert sentence in " ".join(outcome.err.split())


def test_without_ray_the_extra_is_named(inception, tiny_path, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    outcome = inception("predict", tiny_path, folder, "-o", tmp_path / "a.jsonl", "--engine", "ray")
    assert outcome.code == 2
    assert "pip install 'inception[ray]'" in outcome.err


def test_a_jpeg_that_lacks_data_is_answered_with_a_warning(inception, tiny_path, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg", quality=90)
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    outcome = inception("predict", tiny_path, tmp_path / "whole.jpg", tmp_path / "cut.jpg", "--json")
    assert outcome.code == 0
    first, second = outcome.lines()
    assert "warning" not in first
    assert "data is missing" in second["warning"]
    assert second["top"]
    assert "cut.jpg: data is missing" in inception("predict", tiny_path, tmp_path / "cut.jpg").err
