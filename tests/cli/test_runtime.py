"""`inception optimize`, `export` and `benchmark` as a user runs them."""

import json

import pytest
from shapes import shape_picture

for module in ("onnx", "onnxruntime", "openvino"):
    pytest.importorskip(module, reason="needs the extra `runtime`")


def test_optimize_then_predict(inception, tiny_path, tmp_path):
    fast = tmp_path / "fast"
    options = ("--precision", "float32", "--threads", 1, "--rounds", 3, "--engine", "onnxruntime")
    outcome = inception("optimize", tiny_path, "-o", fast, *options)
    assert outcome.code == 0, outcome.err
    assert "onnxruntime" in outcome.out
    assert "float32, 1 threads" in outcome.err
    shape_picture("jade", 1).save(tmp_path / "jade.png")
    [mine] = inception("predict", fast, tmp_path / "jade.png", "--json").lines()
    [theirs] = inception("predict", tiny_path, tmp_path / "jade.png", "--json").lines()
    assert [score["label"] for score in mine["top"]] == [score["label"] for score in theirs["top"]]


def test_optimize_prints_its_plan_as_json(inception, tiny_path, tmp_path):
    outcome = inception(
        "optimize", tiny_path, "-o", tmp_path / "fast", "--engine", "torch", "--rounds", 3, "--json",
        "--precision", "float32", "--threads", 1,
    )  # fmt: skip
    plan = outcome.json()
    assert (plan["engine"], plan["precision"], plan["threads"]) == ("torch", "float32", 1)
    assert plan["measured"][0]["median_ms"] > 0


def test_optimize_asks_for_images_for_int8(inception, tiny_path, tmp_path):
    outcome = inception("optimize", tiny_path, "-o", tmp_path / "fast", "--precision", "int8")
    assert outcome.code == 2
    assert "--calibrate DATA" in outcome.err


def test_optimize_names_a_missing_bundle(inception, tmp_path):
    outcome = inception("optimize", tmp_path / "none", "-o", tmp_path / "fast")
    assert outcome.code == 2
    assert "there is no bundle" in outcome.err


@pytest.mark.parametrize(
    ("form", "name"), [("onnx", "a.onnx"), ("openvino", "a.xml"), ("torch-export", "a.pt2")]
)
def test_export_prints_the_difference(inception, tiny_path, tmp_path, form, name):
    outcome = inception("export", tiny_path, "--to", form, "-o", tmp_path / name)
    assert outcome.code == 0, outcome.err
    assert "largest logit difference" in outcome.out
    assert (tmp_path / name).is_file()
    found = inception("export", tiny_path, "--to", form, "-o", tmp_path / name, "--json").json()
    assert found["relative"] <= 1e-4


def test_export_fails_beyond_the_tolerance(inception, tiny_path, tmp_path):
    outcome = inception("export", tiny_path, "--to", "onnx", "-o", tmp_path / "a.onnx", "--tolerance", 0)
    if outcome.code == 0:
        pytest.skip("the file answers to the last bit here")
    assert outcome.code == 1
    assert "nothing was written" in outcome.err
    assert not (tmp_path / "a.onnx").exists()


def test_export_with_a_missing_extra(inception, tiny_path, tmp_path, monkeypatch):
    from inception.runtime import engines

    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    outcome = inception("export", tiny_path, "--to", "openvino", "-o", tmp_path / "a.xml")
    assert outcome.code == 2
    assert "pip install 'inception[runtime]'" in outcome.err


def test_benchmark_rows(inception, tiny_path, tmp_path):
    target = tmp_path / "rows.json"
    outcome = inception(
        "benchmark", tiny_path, "--batch", 1, "--batch", 2, "--rounds", 3, "--threads", 1, "--json", target
    )
    assert outcome.code == 0, outcome.err
    assert "measured peak of a matrix product" in outcome.err
    found = json.loads(target.read_text())
    wanted = {"model", "batch", "precision", "engine", "median_ms", "images_per_s", "ratio"}
    assert all(wanted <= row.keys() for row in found["rows"])
    assert {row["batch"] for row in found["rows"]} == {1, 2}
    assert {"inception", "PyTorch eager", "OpenVINO", "ONNX Runtime"} == {
        row["engine"] for row in found["rows"]
    }
    ours = next(row for row in found["rows"] if row["engine"] == "inception")
    assert ours["ratio"] == 1.0
    assert ours["gflops"] == pytest.approx(found["gflop_per_image"] * ours["images_per_s"])


def test_benchmark_refuses_a_place_it_cannot_write(inception, tiny_path, tmp_path, monkeypatch):
    from inception.runtime import benchmark

    row = {"model": "m", "engine": "inception", "precision": "float32", "batch": 1, "ratio": 1.0}
    row |= dict.fromkeys(
        ("median_ms", "quartile_low_ms", "quartile_high_ms", "images_per_s", "gflops", "share_of_peak"), 1.0
    )
    found = {"rows": [row], "gflop_per_image": 1.0, "peak_gflops": {"float32": 1.0}, "skipped": {"A": "no"}}
    monkeypatch.setattr(benchmark, "benchmark_bundle", lambda *arguments: found)
    (tmp_path / "file").write_text("")
    outcome = inception("benchmark", tiny_path, "--json", tmp_path / "file" / "rows.json")
    assert outcome.code == 2
    assert "cannot write" in outcome.err
    assert "left out A: no" in outcome.err
