"""int8: calibrated on some images, judged on others, given back layer by layer where it costs too much."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import inception
from inception.errors import DataError, UsageError
from inception.runtime import calibration, quantize
from inception.runtime.calibration import Examples, gather_examples, run_all, spread, top1
from inception.runtime.classifier import Classifier
from inception.runtime.forms import graph_of
from inception.runtime.optimize import Request, optimize_bundle
from inception.weights.bundle import load_bundle

openvino = pytest.importorskip("openvino", reason="needs the extra `runtime`")
pytest.importorskip("nncf", reason="needs the extra `runtime`")
pytest.importorskip("onnx", reason="needs the extra `runtime`")


@pytest.fixture(scope="module")
def examples(trained, shapes) -> Examples:
    return gather_examples(load_bundle(trained.bundle), str(shapes), None, None)


def test_calibration_images_are_not_those_measured(examples):
    assert len(examples.calibration) == 48
    assert len(examples.held_out) == len(examples.targets) == 12
    assert "48 images" in examples.source
    assert sorted(set(examples.targets.tolist())) == [0, 1, 2]


def test_a_folder_without_labels_is_judged_by_the_float32_answers(trained, shapes, tmp_path):
    for number, file in enumerate(sorted((shapes / "train").rglob("*.png"))):
        (tmp_path / f"{number}.png").write_bytes(file.read_bytes())
    bundle = load_bundle(trained.bundle)
    found = gather_examples(bundle, str(tmp_path), None, None)
    assert (len(found.calibration), len(found.held_out)) == (24, 24)
    assert found.targets is None
    logits = run_all(Classifier(bundle, "cpu").compute, found.held_out)
    assert top1(logits, found.correct_answers(logits)) == 1.0


def test_too_few_images_are_refused(trained, shapes, tmp_path):
    for file in sorted((shapes / "train").rglob("*.png"))[:5]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match="calibration needs 20"):
        gather_examples(load_bundle(trained.bundle), str(tmp_path), None, None)


def test_spread_takes_from_everywhere():
    assert spread(tuple(range(10)), 5) == (0, 2, 4, 6, 8)
    assert spread((1, 2), 5) == (1, 2)


def test_an_int8_bundle_answers_and_tells_its_accuracy(trained, shapes, tmp_path):
    request = Request(precision="int8", calibrate=str(shapes), threads=1, rounds=3, engines=("openvino",))
    plan = optimize_bundle(trained.bundle, tmp_path / "fast", request)
    assert plan.precision == "int8"
    assert plan.judged["top1_drop"] <= quantize.MAX_DROP
    assert plan.judged["held_out"] == 12
    assert "int8" in plan.judged["note"]
    xml = (tmp_path / "fast/runtime/model.xml").read_text()
    assert "FakeQuantize" in xml
    classifier = inception.load(tmp_path / "fast")
    evaluation = inception.evaluate_bundle(classifier, shapes).evaluation
    assert evaluation.top1 == pytest.approx(plan.judged["top1"])


def test_layers_go_back_where_quantisation_harms(trained, examples, monkeypatch):
    """With a first judgement that is bad on purpose, the accuracy-controlled form is taken and described."""
    bundle = load_bundle(trained.bundle)
    reference = run_all(Classifier(bundle, "cpu").compute, examples.held_out)
    model = openvino.Core().read_model(graph_of(bundle))
    judged = iter([np.roll(reference, 1, axis=1)])
    honest = quantize._logits

    def judge(*arguments):
        first = next(judged, None)
        return honest(*arguments) if first is None else first

    monkeypatch.setattr(quantize, "_logits", judge)
    found = quantize.quantize(model, examples, reference, 1)
    assert "in float: drop" in found.note
    assert found.drop <= quantize.MAX_DROP
    assert found.model is not model


def test_validate_needs_labels(trained, shapes, tmp_path):
    with pytest.raises(UsageError, match=r"no .*"):
        gather_examples(load_bundle(trained.bundle), str(shapes), str(tmp_path / "nowhere"), None)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_unlabelled_images_calibrate_and_labelled_ones_judge(trained, shapes, tmp_path, form):
    source = tmp_path / "plain"
    source.mkdir()
    for number, file in enumerate(sorted((shapes / "train").rglob("*.png"))):
        (source / f"{number:02}.png").write_bytes(file.read_bytes())
    if form == "zip":
        source = Path(shutil.make_archive(str(source), "zip", source))
    bundle = load_bundle(trained.bundle)
    found = gather_examples(bundle, str(source), str(shapes), None)
    assert (len(found.calibration), len(found.held_out)) == (48, 72)
    assert np.bincount(found.targets).tolist() == [24, 24, 24]
    assert len(gather_examples(bundle, str(source), None, None).calibration) == 24
    with pytest.raises(UsageError, match="no file or folder"):
        gather_examples(bundle, str(source), str(tmp_path / "nowhere"), None)
    with pytest.raises(DataError, match="no labelled images"):
        gather_examples(bundle, str(shapes), str(source), None)


def test_unlabelled_images_are_taken_from_all_of_the_set(trained, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "CALIBRATION_LIMIT", 12)
    pictures = sorted((shapes / "train").rglob("*.png"))
    for number, file in enumerate(pictures):
        (tmp_path / f"{number:02}.png").write_bytes(file.read_bytes())
    found = gather_examples(load_bundle(trained.bundle), str(tmp_path), None, None)
    taken = [Image.open(pictures[number]).convert("RGB") for number in range(0, 48, 2)]
    expected = np.stack([load_bundle(trained.bundle).preprocess.pixels(picture) for picture in taken])
    assert np.array_equal(found.calibration, expected[::2])
    assert np.array_equal(found.held_out, expected[1::2])


def test_a_damaged_archive_says_what_is_wrong(trained, tmp_path):
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(DataError, match=r"no image that can be read: .*half\.zip"):
        gather_examples(load_bundle(trained.bundle), str(tmp_path / "half.zip"), None, None)


def test_validation_images_without_any_to_calibrate_on_are_refused(trained, shapes, tmp_path):
    with pytest.raises(UsageError, match="--calibrate DATA"):
        optimize_bundle(trained.bundle, tmp_path / "fast", Request(validate=str(shapes)))


def test_validation_images_of_another_set(trained, shapes):
    bundle = replace(load_bundle(trained.bundle))
    found = gather_examples(bundle, str(shapes), str(shapes), None)
    assert len(found.calibration) == len(found.held_out) == 72
