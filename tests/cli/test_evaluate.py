"""`inception evaluate`: one JSON object, tables, CSV files and a page."""

import csv
import json
import shutil
from dataclasses import replace

import pytest
from shapes import COLOURS

from inception.runtime.loading import load
from inception.weights.bundle import load_bundle, save_bundle


def test_json_is_the_fixed_interface(inception, trained, shapes):
    outcome = inception("evaluate", trained.bundle, shapes, "--json")
    assert outcome.code == 0
    content = outcome.json()
    assert {"top1", "top5", "loss", "n"} <= content.keys()
    assert content["n"] == 12
    assert 0.9 <= content["top1"] <= content["top5"] == 1.0
    assert content["loss"] > 0
    assert content["split"] == "test"
    assert content["unreadable"] == {}
    val = inception("evaluate", trained.bundle, shapes, "--json", "--split", "val").json()
    assert val["split"] == "val"
    assert {key: val[key] for key in trained.metrics} == pytest.approx(trained.metrics)


def test_the_split_is_test_else_val_else_all(inception, trained, shapes, tmp_path):
    for kept, split, count in ((("val", "train"), "val", 12), (("test",), "test", 12)):
        data = tmp_path / "-".join(kept)
        for name in kept:
            shutil.copytree(shapes / name, data / name)
        content = inception("evaluate", trained.bundle, data, "--json").json()
        assert (content["split"], content["n"]) == (split, count)
    outcome = inception("evaluate", trained.bundle, shapes / "test", "--json")
    assert (outcome.json()["split"], outcome.json()["n"]) == ("all", 12)
    assert "not the set the bundle was trained on" in outcome.err


def test_tables_csv_and_page(inception, trained, shapes, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    (data / "test" / "jade" / "broken.png").write_bytes(b"")
    files = {name: tmp_path / "out" / name for name in ("report.html", "classes.csv", "answers.csv")}
    outcome = inception(
        "evaluate",
        trained.bundle,
        data,
        "--report",
        files["report.html"],
        "--per-class",
        files["classes.csv"],
        "--predictions",
        files["answers.csv"],
    )
    assert outcome.code == 0
    for text in ("top-1", "top-5", "loss", *COLOURS):
        assert text in outcome.out
    assert "left out test/jade/broken.png" in outcome.err
    assert "report.html" in outcome.err

    with files["answers.csv"].open(newline="") as stream:
        answers = list(csv.DictReader(stream))
    assert len(answers) == 13
    assert answers[-1]["path"] == "test/jade/broken.png"
    assert answers[-1]["error"]
    classifier = load(trained.bundle, "cpu")
    for row in answers[:-1]:
        assert row["label"] == row["path"].split("/")[1]
        best = classifier.predict(data / row["path"], top=1)[0].top[0]
        assert row["predicted"] == best.label
        assert float(row["confidence"]) == pytest.approx(best.probability, abs=1e-4)
        assert (row["rank"] == "1") == (row["predicted"] == row["label"])

    with files["classes.csv"].open(newline="") as stream:
        classes = list(csv.DictReader(stream))
    assert [row["label"] for row in classes] == list(COLOURS)

    page = files["report.html"].read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "data:image/" in page
    assert all(label in page for label in COLOURS)


def test_a_page_is_written_whatever_lies_beside_the_bundle(inception, trained, shapes, tmp_path):
    shutil.copytree(trained.bundle, tmp_path / "bundle")
    for content in ('{"epoch": 1, "train_loss": 2.0}\n{"epo', "no json", '[1]\n"x"\n', '{"other": 1}\n'):
        (tmp_path / "metrics.jsonl").write_text(content)
        outcome = inception(
            "evaluate", tmp_path / "bundle", shapes, "--report", tmp_path / "page.html", "--json"
        )
        assert outcome.code == 0, content
        assert (tmp_path / "page.html").exists()


def test_strict_stops_at_an_unreadable_image(inception, trained, shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / "data")
    (tmp_path / "data" / "test" / "jade" / "broken.png").write_bytes(b"")
    outcome = inception("evaluate", trained.bundle, tmp_path / "data", "--strict", "--json")
    assert (outcome.code, outcome.out) == (1, "")
    assert "broken.png" in outcome.err


def test_other_classes_are_named(inception, trained, shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / "data")
    for split in ("train", "val", "test"):
        (tmp_path / "data" / split / "jade").rename(tmp_path / "data" / split / "jaded")
    outcome = inception("evaluate", trained.bundle, tmp_path / "data", "--json")
    assert (outcome.code, outcome.out) == (1, "")
    assert "'jaded' (near 'jade')" in outcome.err


def test_classes_are_matched_by_name_not_by_position(inception, trained, shapes, tmp_path):
    bundle = load_bundle(trained.bundle)
    order = [2, 0, 1]
    state = dict(bundle.state_dict)
    for name in ("fc.weight", "fc.bias"):
        state[name] = state[name][order]
    labels = tuple(bundle.labels[index] for index in order)
    save_bundle(replace(bundle, labels=labels, state_dict=state), tmp_path / "turned")
    ours = inception("evaluate", tmp_path / "turned", shapes, "--json").json()
    theirs = inception("evaluate", trained.bundle, shapes, "--json").json()
    assert ours["top1"] == theirs["top1"]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


@pytest.mark.parametrize("options", [["--split", "dev"], ["--device", "abacus"], ["--workers", "0"]])
def test_impossible_options_print_nothing(inception, trained, shapes, options):
    outcome = inception("evaluate", trained.bundle, shapes, "--json", *options)
    assert outcome.code in (1, 2)
    assert outcome.out == ""


def test_a_place_that_cannot_be_written(inception, trained, shapes, tmp_path):
    (tmp_path / "file").write_text("")
    for option in ("--per-class", "--predictions", "--report"):
        outcome = inception("evaluate", trained.bundle, shapes, option, tmp_path / "file" / "x", "--json")
        assert outcome.code in (1, 2), option
        assert "cannot write" in outcome.err
    assert json.loads((trained.bundle / "bundle.json").read_text())["metrics"]
