"""A bundle that somebody sent: numbers have ranges, files are files, nothing is read without end."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import inception as package
from inception.errors import BundleError, InceptionError, UsageError
from inception.files import parse_json, read_regular
from inception.runtime.answering import softmax
from inception.runtime.plan import Plan, read_plan, write_plan
from inception.weights.bundle import load_bundle, save_bundle
from inception.weights.manifest import MANIFEST_LIMIT_BYTES, ZIP_LIST_LIMIT_BYTES, read_manifest


@pytest.fixture
def folder(tiny_path, tmp_path):
    return shutil.copytree(tiny_path, tmp_path / "bundle")


def change(folder, **values):
    """Set values of the manifest; `a__b` is b in the object a."""
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    for name, value in values.items():
        *outer, last = name.split("__")
        target = manifest
        for key in outer:
            target = target[key]
        target[last] = value
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "name, value",
    [
        *[("temperature", value) for value in (0, -1, 1e-300, 1e-40, 1e300, "1.5", True, None, 10**400)],
        *[("unknown_threshold", value) for value in (-0.1, 1.1, "0.5", True, [])],
        *[("preprocess__std", [value] * 3) for value in (0, 1e-300, 1e-40, 1e300, "1", True, None)],
        *[("preprocess__mean", [value] * 3) for value in (1e300, -1e38, "1", False, None, 10**400)],
        *[("preprocess__crop_fraction", value) for value in (0, 1e-9, 2, "0.5", True, None)],
        *[("preprocess__value_range", value) for value in (0, True, "1.0", 1e300)],
        *[("preprocess__height", value) for value in (0, -1, 32.0, True, 1 << 40, "32")],
        *[("preprocess__fill", value) for value in (-1, 256, 1.0, True)],
        *[("network__arguments__dropout", value) for value in (1.0, -0.1, 1e300, "0.5")],
        *[("network__arguments__bn_eps", value) for value in (0, -1, 1e300)],
        *[("schema", value) for value in (True, 1.0, "1")],
        ("weights_sha256", 3),
        ("labels", "abc"),
        ("labels", ["a", "b", 3]),
        ("network__name", 3),
        ("network__arguments", []),
    ],
)
def test_every_value_has_its_kind_and_range(folder, name, value):
    change(folder, **{name: value})
    with pytest.raises(BundleError) as caught:
        package.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "Error" not in message
    assert len(message) < len(str(folder)) + 300


@pytest.mark.parametrize("thresholds", [[0.5, 0.5], [0.5, 0.5, 2], [0.5, 0.5, True], "abc", {}, None])
def test_thresholds_are_one_number_for_each_label(folder, thresholds):
    change(folder, schema=2, thresholds=thresholds)
    with pytest.raises(BundleError, match=r"thresholds, one number in 0..1 for each label"):
        load_bundle(folder)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("name", ["metrics", "provenance"])
def test_numbers_that_are_not_finite_are_refused_wherever_they_stand(folder, name, number):
    change(folder, **{name: {"x": [{"y": "HERE"}]}})
    path = folder / "bundle.json"
    path.write_text(path.read_text().replace('"HERE"', number))
    with pytest.raises(BundleError, match="not JSON of finite numbers"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("[]", "must be an object, not list"),
        ("3", "must be an object, not int"),
        ("null", "must be an object, not NoneType"),
        ("{}", "says no schema"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_manifest_that_is_none_is_one_sentence(folder, text, reason):
    (folder / "bundle.json").write_text(text)
    for read in (load_bundle, read_manifest, package.load):
        with pytest.raises(BundleError, match=reason) as caught:
            read(folder)
        assert "Error" not in str(caught.value)


@pytest.mark.parametrize("key", ["network", "labels", "preprocess", "temperature", "unknown_threshold"])
def test_a_manifest_that_lacks_a_value_names_it(folder, key):
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    del manifest[key]
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=key):
        load_bundle(folder)


def test_probabilities_are_finite_for_all_finite_logits():
    for scale in (1.0, 1e20, 3e38):
        for temperature in (0.001, 1.0, 1000.0):
            found = softmax(np.array([[1, -1, 0.5], [0, 0, 0]], np.float32) * np.float32(scale), temperature)
            np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-6)


def test_an_answer_that_is_not_finite_is_an_error(tiny_bundle, tmp_path):
    weights = dict(tiny_bundle.state_dict)
    weights["fc.weight"] = weights["fc.weight"] * 1e38
    save_bundle(replace(tiny_bundle, state_dict=weights), tmp_path / "bundle")
    classifier = package.load(tmp_path / "bundle", "cpu")
    with pytest.raises(InceptionError, match="not all finite"):
        classifier.predict(np.full((32, 32, 3), 200, np.uint8))


def pipe(path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def link(path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def directory(path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def giant(path) -> None:
    with path.open("ab") as stream:
        stream.truncate(1 << 40)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and devices")
@pytest.mark.parametrize("replacement", [pipe, link, directory, giant])
@pytest.mark.parametrize(
    "name", ["bundle.json", "model.safetensors", "runtime/plan.json", "runtime/network.json"]
)
def test_what_is_no_file_or_too_large_is_refused_at_once(folder, name, replacement):
    files = {"network.json": b"{}", "network.weights": b""}
    write_plan(Plan("native", "float32", 1, 1), files, folder)
    replacement(folder / name)
    start = time.perf_counter()
    with pytest.raises(BundleError, match=r"(is a (pipe|device|folder), not a file|bytes, more than)"):
        load_bundle(folder) if "runtime" not in name else read_plan(folder)
    assert time.perf_counter() - start < 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and devices")
def test_a_bundle_that_is_a_pipe_or_a_device(tmp_path):
    os.mkfifo(tmp_path / "bundle.zip")
    for path in (tmp_path / "bundle.zip", "/dev/zero"):
        with pytest.raises(BundleError, match=r"is a (pipe|device), not a file"):
            load_bundle(path)


def test_an_archive_with_an_endless_list_of_files(tmp_path):
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(ZIP_LIST_LIMIT_BYTES // 60):
            archive.writestr(f"{number:020}", b"")
    with pytest.raises(BundleError, match="its list of files has more than"):
        load_bundle(path)


def test_an_archive_whose_weights_are_a_sparse_giant(tiny_bundle, tmp_path):
    path = tmp_path / "bundle.zip"
    save_bundle(tiny_bundle, path)
    with zipfile.ZipFile(path) as archive:
        manifest = archive.read("bundle.json")
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        archive.writestr("bundle.json", manifest)
        archive.writestr("model.safetensors", b"")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 20 : at + 28] = b"\xf0\xff\xff\xff" * 2  # sizes of almost 4 GiB
    path.write_bytes(data)
    with pytest.raises(BundleError, match="bytes, more than"):
        load_bundle(path)


def test_memory_for_a_giant_is_not_taken(folder):
    giant(folder / "model.safetensors")
    script = (
        "import resource, sys; from inception.weights.bundle import load_bundle\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: load_bundle(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
    )
    name, megabytes = done.stdout.split()
    assert name == "BundleError"
    assert int(megabytes) < 100


@pytest.mark.parametrize("size", [0, 1, 10, 11, 5000])
def test_no_more_is_read_than_the_limit_and_one_byte(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    if size <= 10:
        assert read_regular(path, 10) == b"x" * size
    else:
        with pytest.raises(ValueError, match=f"file has {size:,} bytes, more than 10"):
            read_regular(path, 10)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_files_without_a_size_are_read_up_to_the_limit():
    assert b"Name:" in read_regular(Path("/proc/self/status"), MANIFEST_LIMIT_BYTES)
    with pytest.raises(ValueError, match="more than 10"):
        read_regular(Path("/proc/self/status"), 10)


@pytest.mark.parametrize("text", [b"NaN", b"[1e400]", b'{"a": -Infinity}'])
def test_json_of_finite_numbers(text):
    with pytest.raises(ValueError, match="not a finite number"):
        parse_json(text, 10, finite=True)
    parse_json(text, 10)
    assert parse_json(b"[1e4, 2, -0.5]", 10, finite=True) == [1e4, 2, -0.5]


@pytest.mark.parametrize(
    "values",
    [
        {"threads": 0},
        {"threads": True},
        {"batch": 1e9},
        {"files": []},
        {"measured": {"a": 1}},
        {"judged": []},
        {"engine": "shell"},
        {"engine": ["native"]},
        {"more": 1},
        {"schema": 2},
    ],
    ids=str,
)
def test_every_value_of_a_plan_has_its_kind_and_range(folder, values):
    write_plan(Plan("torch", "float32", 1, 1), {}, folder)
    path = folder / "runtime" / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(BundleError, match=r"plan\.json is damaged"):
        read_plan(folder)
    path.write_text("[]")
    with pytest.raises(BundleError, match=r"plan\.json is damaged"):
        read_plan(folder)


def test_a_place_without_a_bundle_is_still_said_so(tmp_path):
    with pytest.raises(UsageError, match="there is no bundle at"):
        load_bundle(tmp_path / "nothing")
