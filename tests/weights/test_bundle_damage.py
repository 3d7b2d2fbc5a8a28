"""Whatever has happened to a bundle's files, the answer is a usable bundle or one clear error."""

import hashlib
import json
import resource
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from inception.errors import BundleError, InceptionError
from inception.runtime.classifier import Classifier
from inception.weights.bundle import load_bundle, save_bundle

PICTURE = Image.new("RGB", (50, 40), (200, 80, 20))


@pytest.fixture
def folder(tiny_bundle, tmp_path):
    save_bundle(tiny_bundle, tmp_path / "tiny")
    return tmp_path / "tiny"


def edit(folder, change) -> None:
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("position", [0, 9, 1000, 100_000, -1])
def test_one_flipped_bit_in_the_weights_is_noticed(folder, position):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.safetensors does not match its checksum.*restore it"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "bundle.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load_bundle(folder)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_manifest_cut_off_anywhere(folder, share):
    path = folder / "bundle.json"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BundleError, match="not a usable bundle"):
        load_bundle(folder)


@pytest.mark.parametrize("schema", [3, 0, "1", None, [1], ["deep"] * 1000])
def test_another_schema_asks_for_an_update(folder, schema):
    edit(folder, lambda manifest: manifest.update(schema=schema))
    with pytest.raises(BundleError, match="reads schema 1 and 2: update inception") as caught:
        load_bundle(folder)
    assert len(str(caught.value)) < len(str(folder)) + 200


@pytest.mark.parametrize("name", ["resize", "interpolation", "color"])
def test_a_rule_of_preprocessing_that_is_a_whole_tree_gets_a_short_answer(folder, name):
    edit(folder, lambda manifest: manifest["preprocess"].update({name: [{"a": ["deep"] * 1000}]}))
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    assert len(str(caught.value)) < len(str(folder)) + 300


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "null", '"text"', "[" * 100_000, "{" * 5000, "\ufeff{}", "\0"]
)
def test_a_manifest_that_is_no_object(folder, text):
    (folder / "bundle.json").write_text(text)
    with pytest.raises(BundleError):
        load_bundle(folder)


def test_a_manifest_that_is_not_utf8(folder):
    (folder / "bundle.json").write_bytes(b'{"schema": "\xff\xfe"}')
    with pytest.raises(BundleError):
        load_bundle(folder)


@pytest.mark.parametrize(
    "weights", [b"", b"text", b"\xff" * 8 + b"{}", (10**15).to_bytes(8, "little") + b"{}"]
)
def test_weights_that_are_no_safetensors(folder, weights):
    (folder / "model.safetensors").write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    edit(folder, lambda manifest: manifest.update(weights_sha256=digest))
    with pytest.raises(BundleError, match="not a usable bundle"):
        load_bundle(folder)


ABSURD = [1e6, 1e308, 10**30, -1, 0, True, None, "1", [], {}, 1e-300]
ARGUMENTS = [
    *({"width": value, "stem": "small"} for value in [*ABSURD, float("nan"), float("inf")]),
    *({"width": 0.05, "stem": "small", "in_chans": value} for value in ABSURD),
    *({"width": 0.05, "stem": "small", "num_classes": value} for value in ABSURD),
    *({"width": 0.05, "stem": "small", "image_size": value} for value in ABSURD),
    {"width": 0.05, "stem": "small", "head": "fully_connected", "image_size": 10**9},
    {"width": 0.05, "stem": "small", "global_pool": ""},
    {"width": 0.05, "stem": "small", "dropout": 7},
    {"width": 0.05, "stem": "small", "name": "googlenet"},
    {"width": 0.05, "stem": "small", "aux_logits": 3},
    {"width": 0.05, "stem": ["small"]},
    {"": 1},
    {"os": "rm"},
    {},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_absurd_arguments_neither_crash_nor_take_memory(folder, arguments):
    edit(folder, lambda manifest: manifest["network"].update(arguments=arguments))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        answer = Classifier(load_bundle(folder), "cpu").predict(PICTURE)
    except InceptionError as error:
        assert len(str(error)) < 500
    else:
        assert len(answer[0].top) == 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize(
    "change",
    [
        {"labels": "abc"},
        {"labels": {"a": 1, "b": 2, "c": 3}},
        {"labels": []},
        {"labels": [1, 2, 3]},
        {"labels": ["a", "b"]},
        {"labels": ["a"] * 4},
        {"labels": None},
        {"network": "googlenet"},
        {"network": {"name": ["googlenet_bn"], "arguments": {}}},
        {"network": {"name": "../../etc", "arguments": {}}},
        {"temperature": 0},
        {"temperature": -1},
        {"temperature": None},
        {"temperature": 10**400},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"unknown_threshold": "high"},
        {"unknown_threshold": 2},
        {"unknown_threshold": float("nan")},
        {"preprocess": None},
        {"preprocess": {"height": 10**9, "width": 10**9}},
        {"preprocess": {"height": 4, "width": 4}},
        {"preprocess": {"height": 32, "width": 32, "color": "L", "mean": [0.5], "std": [0.5]}},
        {"provenance": 5},
        {"provenance": {"recipe": 5}},
        {"provenance": {"versions": "2.9"}},
        {"metrics": [1]},
    ],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_an_error_at_once(folder, change):
    edit(folder, lambda manifest: manifest.update(change))
    with pytest.raises(InceptionError) as caught:
        load_bundle(folder).build()
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


def paths_of(value, prefix=()):
    """Every place in a JSON value, as a tuple of keys."""
    yield prefix
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_of(inner, (*prefix, key))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_manifest_changed_anywhere_gives_a_bundle_or_an_inception_error(folder, tiny_bundle, data):
    save_bundle(tiny_bundle, folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        places = [path for path in paths_of(manifest) if path]
        *above, key = data.draw(st.sampled_from(places))
        parent = manifest
        for step in above:
            parent = parent[step]
        if data.draw(st.booleans()):
            del parent[key]
        else:
            parent[key] = data.draw(json_values)
        if not isinstance(manifest, dict) or not manifest:
            break
    (folder / "bundle.json").write_text(json.dumps(manifest))
    try:
        classifier = Classifier(load_bundle(folder), "cpu")
        classifier.predict(PICTURE, unknown=classifier.bundle.unknown_threshold is not None)
    except InceptionError:
        pass


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_zip_gives_a_bundle_or_an_inception_error(tiny_bundle, tmp_path, data):
    path = tmp_path / "tiny.zip"
    if not path.exists():
        save_bundle(tiny_bundle, path)
    good = path.read_bytes()
    # The directory at the end, or anywhere.
    last = len(good) - 1
    positions = data.draw(
        st.lists(st.integers(last - 300, last) | st.integers(0, last), min_size=1, max_size=4)
    )
    damaged = bytearray(good)
    for position in positions:
        damaged[position] = data.draw(st.integers(0, 255))
    bad = tmp_path / "bad.zip"
    bad.write_bytes(damaged[: data.draw(st.integers(0, last) | st.just(last + 1))])
    try:
        bundle = load_bundle(bad)
    except InceptionError:
        return
    for name, value in tiny_bundle.state_dict.items():
        assert torch.equal(bundle.state_dict[name], value)


def test_a_zip_that_lies_about_sizes_is_refused(tiny_bundle, tmp_path):
    path = tmp_path / "lie.zip"
    save_bundle(tiny_bundle, path)
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("model.safetensors").file_size
    data = path.read_bytes()
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"model.safetensors"))
    lying = data[:entry] + data[entry:].replace(size.to_bytes(4, "little"), (2**31).to_bytes(4, "little"))
    path.write_bytes(lying)
    with pytest.raises(BundleError):
        load_bundle(path)
