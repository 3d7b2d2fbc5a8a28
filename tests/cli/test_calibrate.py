"""`inception calibrate` and what `predict` and `evaluate` then say; `inception robustness`."""

import shutil

import pytest
from shapes import write_shapes

from inception.weights.bundle import load_bundle


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained.bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_an_imported_bundle_learns_to_answer_unknown(inception, tiny_path, tmp_path):
    shutil.copytree(tiny_path, tmp_path / "bundle")
    data = write_shapes(tmp_path / "data", {"val": 12, "test": 6})
    assert load_bundle(tmp_path / "bundle").unknown_threshold is None
    outcome = inception("calibrate", tmp_path / "bundle", data, "--json")
    assert outcome.code == 0, outcome.err
    content = outcome.json()
    assert (content["split"], content["n"]) == ("val", 36)
    assert content["loss"] < content["loss_before"]
    stored = load_bundle(tmp_path / "bundle")
    assert (stored.temperature, stored.unknown_threshold) == (
        content["temperature"],
        content["unknown_threshold"],
    )
    assert stored.provenance["calibration"]["split"] == "val"
    answers = inception("predict", tmp_path / "bundle", data / "test", "--unknown", "--json")
    assert answers.code == 0
    for answer in answers.lines():
        best = next(score for score in answer["top"] if score["label"] != "unknown")
        below = best["probability"] < stored.unknown_threshold
        assert (answer["top"][0]["label"] == "unknown") == below
    measured = inception("evaluate", tmp_path / "bundle", data, "--json").json()
    assert measured["calibration"]["temperature"] == content["temperature"]


def test_another_bundle_a_table_and_the_test_split(inception, copy, shapes, tmp_path):
    before = load_bundle(copy)
    write_shapes(tmp_path / "tested", {"train": 3, "test": 8})
    outcome = inception(
        "calibrate", copy, shapes, "--split", "train", "-o", tmp_path / "new", "--keep", "0.5"
    )
    assert outcome.code == 0, outcome.err
    for text in ("temperature", "threshold for unknown", "right answers kept", "wrong answers refused"):
        assert text in outcome.out
    assert load_bundle(copy).temperature == before.temperature
    assert load_bundle(tmp_path / "new").provenance["calibration"]["keep"] == 0.5


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--keep", "0"], 2, "0"),
        (["--split", "dev"], 1, "has no split 'dev'"),
        ([], 2, "at least 20 images, got 12"),
    ],
)
def test_what_cannot_be_calibrated(inception, copy, shapes, options, code, message):
    outcome = inception("calibrate", copy, shapes, *options, "--json")
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err


def test_robustness_as_table_json_and_pictures(inception, trained, shapes, tmp_path):
    pytest.importorskip("matplotlib", reason="draws with matplotlib")
    files = [tmp_path / "curves.svg", tmp_path / "sheet.png"]
    outcome = inception(
        "robustness", trained.bundle, shapes, "--json", "--picture", files[0], "--examples", files[1]
    )
    assert outcome.code == 0, outcome.err
    content = outcome.json()
    assert (content["n"], content["split"], len(content["levels"])) == (12, "test", 20)
    assert content["top1"] >= 0.9
    assert content["unreadable"] == {}
    assert files[0].read_text(encoding="utf-8").startswith("<svg")
    assert files[1].read_bytes().startswith(b"\x89PNG")
    table = inception("robustness", trained.bundle, shapes, "--limit", "4")
    for text in ("clean", "noise", "blur", "jpeg", "brightness", "mean of all", "4 images"):
        assert text in table.out


def test_robustness_refuses_other_pictures(inception, trained, shapes, tmp_path):
    outcome = inception("robustness", trained.bundle, shapes, "--picture", tmp_path / "x.pdf")
    assert (outcome.code, outcome.out) == (2, "")
    assert ".png or .svg" in outcome.err
    (tmp_path / "file").write_text("")
    outcome = inception(
        "robustness", trained.bundle, shapes, "--limit", "1", "--picture", tmp_path / "file" / "x.svg"
    )
    assert outcome.code == 2
    assert "cannot write" in outcome.err
