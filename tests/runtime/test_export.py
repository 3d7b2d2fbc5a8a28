"""Exported files carry labels and preprocessing, answer as the bundle, and are not left when they do not."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from inception.errors import UsageError
from inception.runtime import export
from inception.runtime.classifier import Classifier
from inception.runtime.export import ExportError, export_bundle
from inception.runtime.timing import probe_images
from inception.weights.bundle import save_bundle

onnx = pytest.importorskip("onnx", reason="needs the extra `runtime`")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `runtime`")
openvino = pytest.importorskip("openvino", reason="needs the extra `runtime`")


@pytest.fixture(scope="module")
def warm_path(tiny_bundle, tmp_path_factory):
    """The tiny bundle with a temperature, which the probabilities must show."""
    path = tmp_path_factory.mktemp("warm") / "bundle"
    save_bundle(replace(tiny_bundle, temperature=1.7), path)
    return path


@pytest.fixture(scope="module")
def expected(warm_path):
    pixels = probe_images((3, 32, 32), 4, seed=11)
    classifier = Classifier(export.load_bundle(warm_path), "cpu")
    batch = torch.from_numpy(pixels)
    return pixels, classifier.logits(batch).numpy(), classifier.probabilities(batch).numpy()


def check(found, expected):
    logits, probabilities = found
    assert np.abs(logits - expected[1]).max() <= 1e-4 * np.abs(expected[1]).max()
    np.testing.assert_allclose(probabilities, expected[2], atol=1e-5)


@pytest.mark.parametrize("pixel_type", ["uint8", "float32"])
def test_onnx(warm_path, tiny_bundle, expected, tmp_path, pixel_type):
    result = export_bundle(warm_path, tmp_path / "net.onnx", "onnx", pixel_type)
    assert result.relative <= 1e-4
    assert result.files == (str(tmp_path / "net.onnx"),)
    assert result.runtime.startswith("ONNX Runtime")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    check(session.run(["logits", "probabilities"], {"images": expected[0].astype(pixel_type)}), expected)
    texts = session.get_modelmeta().custom_metadata_map
    assert json.loads(texts["labels"]) == list(tiny_bundle.labels)
    assert json.loads(texts["preprocess"]) == tiny_bundle.preprocess.to_dict()
    assert float(texts["temperature"]) == 1.7


@pytest.mark.parametrize("pixel_type", ["uint8", "float32"])
def test_openvino(warm_path, tiny_bundle, expected, tmp_path, pixel_type):
    result = export_bundle(warm_path, tmp_path / "net.xml", "openvino", pixel_type)
    assert result.files == (str(tmp_path / "net.bin"), str(tmp_path / "net.xml"))
    model = openvino.Core().read_model(tmp_path / "net.xml")
    results = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
        {"images": expected[0].astype(pixel_type)}
    )
    check((results["logits"], results["probabilities"]), expected)
    assert json.loads(model.get_rt_info(["inception", "labels"]).astype(str)) == list(tiny_bundle.labels)


def test_torch_export(warm_path, tiny_bundle, expected, tmp_path):
    export_bundle(warm_path, tmp_path / "net.pt2", "torch-export")
    texts = {"labels.json": "", "preprocess.json": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=texts)
    with torch.no_grad():
        results = program.module()(torch.from_numpy(expected[0]))
    check((results["logits"].numpy(), results["probabilities"].numpy()), expected)
    assert json.loads(texts["labels.json"]) == list(tiny_bundle.labels)


@pytest.mark.parametrize(
    ("form", "name"), [("onnx", "a.onnx"), ("openvino", "a.xml"), ("torch-export", "a.pt2")]
)
def test_beyond_the_tolerance_nothing_is_left(warm_path, tmp_path, monkeypatch, form, name):
    write, run = export._FORMS[form]

    def wrong(*arguments):
        runtime, logits, probabilities = run(*arguments)
        return runtime, logits + 0.01 * np.abs(logits).max(), probabilities

    monkeypatch.setitem(export._FORMS, form, (write, wrong))
    with pytest.raises(ExportError, match="nothing was written"):
        export_bundle(warm_path, tmp_path / name, form)
    assert list(tmp_path.iterdir()) == []


def test_logits_that_are_no_numbers_are_beyond_every_tolerance(warm_path, tmp_path, monkeypatch):
    write, run = export._FORMS["onnx"]

    def broken(*arguments):
        runtime, logits, probabilities = run(*arguments)
        return runtime, logits * np.float32("nan"), probabilities

    monkeypatch.setitem(export._FORMS, "onnx", (write, broken))
    with pytest.raises(ExportError):
        export_bundle(warm_path, tmp_path / "a.onnx", "onnx", tolerance=1.0)


def test_an_older_file_stays_when_the_new_one_fails(warm_path, tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"old")
    with pytest.raises(ExportError):
        export_bundle(warm_path, tmp_path / "net.onnx", "onnx", tolerance=0.0)
    assert (tmp_path / "net.onnx").read_bytes() == b"old"


def test_another_suffix_is_refused(warm_path, tmp_path):
    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        export_bundle(warm_path, tmp_path / "net.bin", "onnx")
