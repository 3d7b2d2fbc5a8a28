"""`inception evaluate` with crops, ensembles, comparisons, and the paper's Table 3."""

from dataclasses import replace

import numpy as np
import pytest
from shapes import write_shapes

from inception.runtime.loading import load
from inception.weights.bundle import load_bundle, save_bundle


@pytest.fixture(scope="module")
def other(tiny_path, tmp_path_factory):
    """An untrained bundle with the classes of `trained`, in another order."""
    bundle = load_bundle(tiny_path)
    order = [2, 0, 1]
    state = dict(bundle.state_dict)
    for name in ("fc.weight", "fc.bias"):
        state[name] = state[name][order]
    path = tmp_path_factory.mktemp("bundles") / "other"
    labels = tuple(bundle.labels[index] for index in order)
    save_bundle(replace(bundle, labels=labels, state_dict=state), path)
    return path


@pytest.mark.parametrize("crops", ["single", "1", "10", "12", "144", "dense"])
def test_crops_of_one_bundle_keep_the_fixed_interface(inception, trained, shapes, crops):
    outcome = inception("evaluate", trained.bundle, shapes, "--crops", crops, "--json")
    assert outcome.code == 0, outcome.err
    content = outcome.json()
    assert {"top1", "top5", "loss", "n", "bootstrap", "images_per_s"} <= content.keys()
    assert content["n"] == 12
    # Cuts of a picture of 32 pixels may leave its shape out.
    assert content["top1"] >= (0.6 if crops in ("144", "dense") else 0.8)
    low, high = content["bootstrap"]["loss"]
    assert low < content["loss"] < high
    if crops != "single":
        assert content["crops"] == crops


def test_one_bundle_is_measured_alike_with_and_without_the_new_way(inception, trained, shapes):
    plain = inception("evaluate", trained.bundle, shapes, "--json").json()
    limited = inception("evaluate", trained.bundle, shapes, "--json", "--limit", "12").json()
    few = inception("evaluate", trained.bundle, shapes, "--json", "--limit", "5").json()
    assert limited["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert (limited["top1"], few["n"]) == (plain["top1"], 5)


def test_two_bundles_are_compared(inception, trained, other, shapes):
    content = inception("evaluate", trained.bundle, other, shapes, "--json").json()
    alone = [inception("evaluate", path, shapes, "--json").json() for path in (trained.bundle, other)]
    assert [item["top1"] for item in content["bundles"]] == [item["top1"] for item in alone]
    [comparison] = content["comparisons"]
    assert comparison["top1_change"] == pytest.approx(alone[1]["top1"] - alone[0]["top1"])
    counts = comparison["mcnemar"]
    difference = (counts["only_second"] - counts["only_first"]) / 12
    assert difference == pytest.approx(comparison["top1_change"])
    table = inception("evaluate", trained.bundle, other, shapes)
    assert table.code == 0
    for text in ("McNemar p", "right alone", str(trained.bundle)):
        assert text in table.out.replace("\n", "")


def test_an_ensemble_is_measured_as_one_classifier(inception, trained, other, shapes, tmp_path):
    files = [tmp_path / name for name in ("page.html", "classes.csv", "answers.csv")]
    options = [
        x for pair in zip(("--report", "--per-class", "--predictions"), files, strict=True) for x in pair
    ]
    outcome = inception("evaluate", trained.bundle, other, shapes, "--ensemble", "equal", "--json", *options)
    content = outcome.json()
    assert all(path.exists() for path in files)
    assert "average of" in files[0].read_text(encoding="utf-8")
    first, second = load(trained.bundle, "cpu"), load(other, "cpu")
    from inception.data.sources import open_dataset
    from inception.evaluate.answers import collect_answers

    dataset = open_dataset(shapes)
    answers = collect_answers([first, second], ("single",), dataset, dataset.split("test"))
    mean = (answers.probabilities[0, "single"] + answers.probabilities[1, "single"]) / 2
    loss = -np.log(mean[np.arange(12), answers.targets]).mean()
    assert content["loss"] == pytest.approx(float(loss), rel=1e-4)
    assert content["weights"] is None


def test_an_ensemble_weighted_on_val_trusts_the_trained_one(inception, trained, other, shapes, tmp_path):
    outcome = inception("evaluate", other, trained.bundle, shapes, "--ensemble", "validation", "--json")
    content = outcome.json()
    assert content["weights"][1] > 0.8
    assert content["top1"] >= 0.9
    assert "12 images of val" in outcome.err
    table = inception("evaluate", other, trained.bundle, shapes, "--ensemble", "validation")
    assert "weights" in table.out
    data = write_shapes(tmp_path / "plain", {"all": 4}) / "all"
    refused = inception("evaluate", other, trained.bundle, data, "--ensemble", "validation")
    assert refused.code == 1
    assert "needs a val split beside the measured one ('all')" in refused.err


def test_table3_as_table_and_as_json(inception, trained, other, shapes):
    arguments = ("evaluate", trained.bundle, other, shapes, "--table3", "--crops", "1,10,144")
    content = inception(*arguments, "--json").json()
    assert [(row["models"], row["crops"], row["cost"]) for row in content["rows"]] == [
        (1, "1", 1),
        (1, "10", 10),
        (1, "144", 144),
        (2, "1", 2),
        (2, "10", 20),
        (2, "144", 288),
    ]
    alone = inception("evaluate", trained.bundle, shapes, "--crops", "144", "--json").json()
    assert content["rows"][2]["top1_error"] == pytest.approx(1 - alone["top1"])
    table = inception(*arguments)
    for text in ("models", "crops", "cost", "top-5 error", "compared to base", "base", "288"):
        assert text in table.out
    default = inception("evaluate", trained.bundle, shapes, "--table3", "--json").json()
    assert [row["crops"] for row in default["rows"]] == ["1", "10", "144"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crops", "11"], "--crops knows single, 2, 6, 1, 10, 12, 144, dense, not '11'"),
        (["--crops", "1,10"], "add --table3"),
        (["--ensemble", "equal"], "--ensemble needs two bundles or more"),
        (["--table3", "--per-class", "x.csv"], "--per-class is of one classifier"),
        (["--limit", "0"], "0 is not in the range"),
    ],
)
def test_what_does_not_go_together(inception, trained, shapes, options, message):
    outcome = inception("evaluate", trained.bundle, shapes, *options, "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_two_bundles_have_no_report_and_a_table_no_ensemble(inception, trained, other, shapes):
    outcome = inception("evaluate", trained.bundle, other, shapes, "--report", "page.html")
    assert (outcome.code, outcome.out) == (2, "")
    assert "combine them with --ensemble" in outcome.err
    outcome = inception("evaluate", trained.bundle, other, shapes, "--table3", "--ensemble", "equal")
    assert outcome.code == 2


def test_bundles_with_other_classes_are_refused(inception, trained, other, shapes, tmp_path):
    bundle = load_bundle(other)
    save_bundle(replace(bundle, labels=("amber", "jade", "pink")), tmp_path / "pink")
    outcome = inception("evaluate", trained.bundle, tmp_path / "pink", shapes, "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert "lacks 'violet'" in outcome.err
    assert "'pink'" in outcome.err


def held_back(path, folder, **recipe):
    """A copy of the bundle that says to have been trained on `folder`."""
    from inception.data.sources import open_dataset

    bundle, dataset = load_bundle(path), open_dataset(folder, **recipe)
    provenance = {"data": dataset.name, "data_fingerprint": dataset.fingerprint, "recipe": recipe}
    return replace(bundle, provenance=provenance)


def test_a_bundle_trained_on_the_measured_images_is_named(inception, other, tmp_path):
    data = write_shapes(tmp_path / "plain", {"all": 12}) / "all"
    for name, seed in (("one", 0), ("two", 1)):
        save_bundle(held_back(other, data, val_fraction=0.25, seed=seed), tmp_path / name)
    outcome = inception("evaluate", tmp_path / "one", tmp_path / "two", data, "--json")
    assert outcome.code == 0
    assert "two was trained on other images of all" in outcome.err
    assert "one was trained" not in outcome.err


def test_images_that_any_of_the_bundles_was_trained_on_are_not_measured(inception, other, trained, tmp_path):
    data = write_shapes(tmp_path / "plain", {"all": 12}) / "all"
    save_bundle(held_back(other, data, val_fraction=0.25, seed=3), tmp_path / "pupil")
    stranger = trained.bundle  # its classes are in another order
    alone = inception("evaluate", tmp_path / "pupil", data, "--json").json()
    for bundles in ((tmp_path / "pupil", stranger), (stranger, tmp_path / "pupil")):
        content = inception("evaluate", *bundles, data, "--json").json()
        assert (content["split"], content["n"]) == ("test", alone["n"])
        top1 = {item["bundle"]: item["top1"] for item in content["bundles"]}
        assert top1[str(tmp_path / "pupil")] == alone["top1"]


def test_a_bundle_of_several_labels_is_refused_at_any_place(inception, trained, other, shapes, tmp_path):
    bundle = load_bundle(other)
    save_bundle(replace(bundle, thresholds=(0.5, 0.5, 0.5)), tmp_path / "several")
    for more in ([], ["--ensemble", "equal"]):
        outcome = inception("evaluate", trained.bundle, tmp_path / "several", shapes, "--json", *more)
        assert (outcome.code, outcome.out) == (2, "")
        assert "several: this measurement is for bundles with one label an image" in outcome.err
    outcome = inception("evaluate", tmp_path / "several", shapes, "--table3", "--crops", "single")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--table3 cannot be had" in outcome.err


def test_a_part_of_the_images_keeps_the_temperature(inception, trained, shapes):
    content = inception("evaluate", trained.bundle, shapes, "--limit", "1000", "--json").json()
    whole = inception("evaluate", trained.bundle, shapes, "--json").json()
    assert content["calibration"]["temperature"] == whole["calibration"]["temperature"] != 1.0
    assert content["loss"] == pytest.approx(whole["loss"], rel=1e-4)
