"""An optimised bundle: built, opened, followed, damaged, and without its engine."""

import json
import logging
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from shapes import COLOURS, shape_picture, write_shapes

import inception
from inception.cli.main import run
from inception.data.preprocess import Preprocess
from inception.errors import BundleError, UsageError
from inception.evaluate.embeddings import features
from inception.nets.registry import build_network
from inception.runtime import engines, optimize
from inception.runtime.answering import softmax
from inception.runtime.classifier import Classifier
from inception.runtime.compiled import TorchRunner
from inception.runtime.forms import Form, Normalized, choose_form, graph_of, rewritten
from inception.runtime.native.from_onnx import read_graph
from inception.runtime.native.runner import _outcome as native_outcome
from inception.runtime.native.runner import native_files
from inception.runtime.optimize import Request, optimize_bundle
from inception.runtime.plan import Plan, read_plan, write_plan
from inception.runtime.session import Session
from inception.runtime.timing import gemm_peak, interleaved, probe_images, ratio, summary
from inception.weights.bundle import Bundle, load_bundle

openvino = pytest.importorskip("openvino", reason="needs the extra `runtime`")
for module in ("onnx", "onnxruntime"):
    pytest.importorskip(module, reason="needs the extra `runtime`")

NO_NATIVE = native_outcome() if isinstance(native_outcome(), str) else ""
QUICK = Request(precision="float32", threads=1, rounds=3)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def fast(tiny_path, tmp_path_factory, said):
    output = tmp_path_factory.mktemp("fast") / "bundle"
    optimize_bundle(tiny_path, output, replace(QUICK, batch=2), said.append)
    return output


def with_engine(fast, tmp_path, engine: str):
    """The same bundle with a plan for `engine`."""
    bundle, target = load_bundle(fast), tmp_path / engine
    plan, artefacts = Plan(engine, "float32", 1, 2), {}
    if engine == "openvino":
        artefacts = optimize.serialized(openvino.Core().read_model(graph_of(bundle)))
    elif engine == "onnxruntime":
        artefacts = {"model.onnx": graph_of(bundle)}
    elif engine == "native":
        artefacts = native_files(read_graph(graph_of(bundle)), half=False, together=2)
    optimize.write_optimized(bundle, plan, artefacts, target)
    return target


@pytest.mark.parametrize("engine", ["native", "openvino", "onnxruntime", "torch"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_engine_answers_as_the_original(fast, tiny_bundle, tmp_path, engine, count):
    if engine == "native" and NO_NATIVE:
        pytest.skip(NO_NATIVE)
    session = inception.load(with_engine(fast, tmp_path, engine))
    assert isinstance(session, Session)
    pixels = torch.from_numpy(probe_images((3, 32, 32), count))
    expected = Classifier(tiny_bundle, "cpu").logits(pixels)
    found = session.logits(pixels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_session_has_the_interface_of_a_classifier(fast, tiny_path):
    session, classifier = inception.load(fast), inception.load(tiny_path, "cpu")
    pictures = [shape_picture(label, 1) for label in COLOURS]
    assert session.labels == classifier.labels
    assert session.preprocess == classifier.preprocess
    assert session.device.type == "cpu"
    assert session.precision == "float32"
    assert session.bundle.network == "googlenet_bn"
    assert not session.model.training
    for mine, theirs in zip(session.predict(pictures), classifier.predict(pictures), strict=True):
        assert [score.label for score in mine.top] == [score.label for score in theirs.top]
        assert [score.probability for score in mine.top] == pytest.approx(
            [score.probability for score in theirs.top], abs=1e-4
        )
    pixels = torch.from_numpy(probe_images((3, 32, 32), 3))
    torch.testing.assert_close(session.probabilities(pixels).sum(1), torch.ones(3))
    assert session.predict(b"no image")[0].error is not None


def test_the_plan_tells_what_was_measured(fast, said):
    plan, files = read_plan(fast)
    assert plan.files.keys() == files.keys()
    assert {"model", "batch", "precision", "engine", "median_ms", "images_per_s", "ratio"} <= plan.measured[
        0
    ].keys()
    engines_measured = {row["engine"] for row in plan.measured}
    ours = set() if NO_NATIVE else {"native"}
    assert {"openvino", "onnxruntime", "torch", optimize.ORIGINAL, *ours} == engines_measured
    assert plan.judged["relative"] <= optimize.FLOAT32_TOLERANCE
    assert plan.batch == 2
    assert plan.machine["versions"].keys() >= {"torch", "openvino"}
    assert any("made openvino float32" in line for line in said)
    fastest = min(
        (row for row in plan.measured if row["engine"] != optimize.ORIGINAL), key=lambda row: row["median_ms"]
    )
    assert fastest["engine"] == plan.engine


@pytest.mark.skipif(bool(NO_NATIVE), reason=f"no native engine here: {NO_NATIVE}")
def test_a_native_plan_of_another_network_is_refused(fast, tmp_path):
    bundle = load_bundle(fast)
    other = replace(bundle, preprocess=Preprocess(height=40, width=40))
    files = native_files(read_graph(graph_of(other)), half=False)
    optimize.write_optimized(bundle, Plan("native", "float32", 1, 1), files, tmp_path / "mixed")
    with pytest.raises(BundleError, match="of another network"):
        inception.load(tmp_path / "mixed")


@pytest.mark.skipif(bool(NO_NATIVE), reason=f"no native engine here: {NO_NATIVE}")
def test_a_native_plan_answers_without_pytorch(fast, tmp_path):
    path = with_engine(fast, tmp_path, "native")
    code = "import sys, inception; inception.load(sys.argv[1]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_another_precision_or_device_leaves_the_plan_aside(fast):
    assert isinstance(inception.load(fast, precision="bfloat16"), Classifier)
    assert isinstance(inception.load(fast, device="cpu"), Session)


def test_the_ordinary_bundle_is_still_there(fast, tiny_bundle):
    bundle = load_bundle(fast)
    assert all(torch.equal(value, bundle.state_dict[name]) for name, value in tiny_bundle.state_dict.items())


def test_without_its_engine_pytorch_answers_and_says_so(fast, tmp_path, monkeypatch, caplog):
    path = with_engine(fast, tmp_path, "openvino")
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING, "inception"):
        classifier = inception.load(path)
    assert isinstance(classifier, Classifier)
    assert "openvino, which is not installed: pip install 'inception[runtime]'" in caplog.text
    assert "PyTorch answers in float32 instead" in caplog.text


def test_no_engine_at_all_is_one_sentence(tiny_path, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    request = replace(QUICK, engines=("openvino", "onnxruntime"))
    with pytest.raises(UsageError, match=r"no engine can run this bundle.*inception\[runtime\]"):
        optimize_bundle(tiny_path, tmp_path / "out", request)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "plan.json").write_text("{"),
        lambda folder: (folder / "plan.json").write_text("[]"),
        lambda folder: (folder / "plan.json").write_text('{"schema": 99}'),
        lambda folder: (folder / "plan.json").write_text(
            json.dumps({**json.loads((folder / "plan.json").read_text()), "engine": "../../evil"})
        ),
        lambda folder: (folder / "plan.json").write_text(
            json.dumps({**json.loads((folder / "plan.json").read_text()), "threads": 0})
        ),
        lambda folder: (folder / "model.onnx").write_bytes(b"other"),
        lambda folder: (folder / "model.onnx").unlink(),
    ],
)
def test_a_damaged_plan_is_one_sentence(fast, tmp_path, damage):
    path = with_engine(fast, tmp_path, "onnxruntime")
    damage(path / "runtime")
    with pytest.raises(BundleError, match="optimise the bundle again"):
        inception.load(path)


def test_nothing_but_a_bundle_is_replaced(tiny_path, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="is not a bundle"):
        optimize_bundle(tiny_path, tmp_path, replace(QUICK, engines=("torch",)))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="is a folder"):
        optimize_bundle(tiny_path, tmp_path / "x.zip", QUICK)


def test_an_optimised_bundle_can_be_optimised_in_place(fast, tmp_path):
    path = with_engine(fast, tmp_path, "onnxruntime")
    plan = optimize_bundle(path, path, replace(QUICK, engines=("torch",)))
    assert plan.engine == "torch"
    assert read_plan(path)[0].engine == "torch"


def test_a_candidate_that_deviates_is_left_out(tiny_path, tmp_path, monkeypatch):
    monkeypatch.setattr(TorchRunner, "_run", lambda self, pixels: np.ones((len(pixels), 3), np.float32))
    lines: list[str] = []
    request = replace(QUICK, engines=("torch",))
    with pytest.raises(UsageError, match="no engine can run this bundle as asked"):
        optimize_bundle(tiny_path, tmp_path / "out", request, lines.append)
    assert any("its logits differ by" in line for line in lines)


def test_int8_without_images_is_refused(tiny_path, tmp_path):
    with pytest.raises(UsageError, match="--calibrate DATA"):
        optimize_bundle(tiny_path, tmp_path / "out", Request(precision="int8"))


def test_answering_from_an_optimised_bundle_imports_no_pytorch(fast, tmp_path):
    path = with_engine(fast, tmp_path, "onnxruntime")
    shape_picture("jade", 1).save(tmp_path / "jade.png")
    script = (
        "import sys; from inception.cli.main import run; "
        f"code = run(['predict', {str(path)!r}, {str(tmp_path / 'jade.png')!r}, '--json']); "
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"


def test_a_zip_of_an_optimised_bundle_is_followed(fast, tmp_path):
    path = with_engine(fast, tmp_path, "onnxruntime")
    with zipfile.ZipFile(tmp_path / "fast.zip", "w") as archive:
        for file in path.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(path).as_posix())
    assert isinstance(inception.load(tmp_path / "fast.zip"), Session)


def test_forms_are_chosen_by_time(tiny_bundle, monkeypatch):
    """With an engine whose time is its number of convolutions, siblings are merged; else they are not."""
    now = [0.0]
    monkeypatch.setattr("inception.runtime.timing.time.perf_counter", lambda: now[0])

    def prepare(graph: bytes, price: float):
        def work() -> None:
            now[0] += 0.01 * (graph.count(b"Conv") / 100) ** price

        return work

    form, found = choose_form(tiny_bundle, partial(prepare, price=1), rounds=3)
    assert set(found) == {"siblings merged"}  # it has no LRN, no average pools, and stride 1 at the start
    assert form == Form(merged=True)
    form, _ = choose_form(tiny_bundle, partial(prepare, price=-1), rounds=3)
    assert form == Form()


def test_threads_that_still_spin_are_waited_for():
    spinning, moments = threading.Event(), []

    def spin(until):
        while time.perf_counter() < until:
            pass
        spinning.clear()

    def starts_a_thread():
        spinning.set()
        threading.Thread(target=spin, args=(time.perf_counter() + 0.05,)).start()

    works = {"spins": starts_a_thread, "measured": lambda: moments.append(spinning.is_set())}
    interleaved(works, rounds=3, warm_up=0)
    assert moments == [False] * 6  # an unmeasured and a measured run in each round


def test_ratios_are_medians_over_rounds():
    assert ratio([1.0, 2.0, 9.0], [2.0, 2.0, 3.0]) == 1.0
    found = summary([0.004, 0.001, 0.002, 0.003], batch=2)
    assert found["median_ms"] == pytest.approx(2.5)
    assert found["images_per_s"] == pytest.approx(800)
    order: list[str] = []
    interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, warm_up=1)
    assert order == ["a", "b", *["a", "a", "b", "b"] * 2]
    assert gemm_peak("float32", 1, size=64, seconds=0.01) > 0.1


def test_softmax_of_large_logits():
    found = softmax(np.array([[1000.0, 999.0]], np.float32), 1.0)
    np.testing.assert_allclose(found, [[0.7310586, 0.2689414]], rtol=1e-5)


def test_a_plan_survives_the_disk(tmp_path):
    plan = Plan("onnxruntime", "float32", 2, 4, measured=({"engine": "x"},), skipped={"a": "b"})
    (tmp_path / "bundle").mkdir()
    write_plan(plan, {"model.onnx": b"graph"}, tmp_path / "bundle")
    found, files = read_plan(tmp_path / "bundle")
    assert files == {"model.onnx": b"graph"}
    assert (found.engine, found.threads, found.batch, found.skipped) == ("onnxruntime", 2, 4, {"a": "b"})


def test_a_network_without_a_first_convolution_keeps_its_normalisation():
    """A stem that is not one convolution block: the pixels are normalised in front of it."""
    torch.manual_seed(0)
    network = build_network("inception_v2", num_classes=3, width=0.1, separable=True)
    arguments = network.arguments
    bundle = Bundle("inception_v2", arguments, ("a", "b", "c"), Preprocess(), network.state_dict())
    module = rewritten(bundle)
    pixels = torch.from_numpy(probe_images((3, 224, 224), 1))
    with torch.no_grad():
        expected = bundle.build()(bundle.preprocess.normalize(pixels))
        torch.testing.assert_close(module(pixels), expected, rtol=1e-4, atol=1e-5)
    assert isinstance(module, Normalized)


def test_the_network_beside_a_plan_runs_in_float32(fast, tiny_bundle, tmp_path):
    """Features are the network's own, whatever the engine's precision."""
    target = tmp_path / "low"
    plan = Plan("openvino", "bfloat16", 1, 2)
    files = optimize.serialized(openvino.Core().read_model(graph_of(tiny_bundle)))
    optimize.write_optimized(tiny_bundle, plan, files, target)
    batch = torch.from_numpy(probe_images((3, 32, 32), 2))
    session = inception.load(target)
    assert session.precision == "bfloat16"
    expected = features(Classifier(tiny_bundle, "cpu"), batch, "features", "average")
    assert np.allclose(features(session, batch, "features", "average"), expected, atol=1e-6)


def test_calibration_keeps_the_plan(fast, tmp_path, capsys):
    copy, data = tmp_path / "copy", write_shapes(tmp_path / "data", {"val": 12})
    shutil.copytree(fast, copy)
    assert run(["calibrate", str(copy), str(data)]) == 0
    assert read_plan(copy)[0].engine == read_plan(fast)[0].engine
    assert load_bundle(copy).temperature != load_bundle(fast).temperature
    capsys.readouterr()
    assert run(["calibrate", str(copy), str(data), "-o", str(tmp_path / "other.zip")]) == 2
    assert "written as a folder" in capsys.readouterr().err
