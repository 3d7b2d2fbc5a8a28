"""A bundle comes back as it was saved, or says why it cannot."""

import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from inception.errors import BundleError, UsageError
from inception.files import sha256_file
from inception.weights import manifest
from inception.weights.bundle import load_bundle, save_bundle


@pytest.fixture(params=["folder", "zip"])
def saved(request, tiny_bundle, tmp_path) -> Path:
    path = tmp_path / ("tiny.zip" if request.param == "zip" else "tiny")
    save_bundle(tiny_bundle, path)
    return path


def assert_same(ours, theirs):
    assert replace(ours, state_dict={}) == replace(theirs, state_dict={})
    assert ours.state_dict.keys() == theirs.state_dict.keys()
    for name, value in theirs.state_dict.items():
        assert ours.state_dict[name].dtype == value.dtype
        assert torch.equal(ours.state_dict[name], value)


def test_round_trip_is_bit_equal(tiny_bundle, saved, tmp_path):
    full = replace(
        tiny_bundle,
        labels=("玫瑰", 'a "quoted" | label', "ünï\ncode \udcff"),
        provenance={"seed": 3, "recipe": {"epochs": 2}, "versions": {"torch": "2"}},
        metrics={"val": {"n": 3, "top1": 0.5, "top5": 1.0, "loss": 0.25}},
        unknown_threshold=0.125,
        temperature=1.5,
    )
    for bundle in (tiny_bundle, full):
        save_bundle(bundle, saved)
        assert_same(load_bundle(saved), bundle)
        assert_same(load_bundle(str(saved)), bundle)


def test_a_built_network_answers_as_the_one_that_was_saved(tiny_bundle, saved):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    network = load_bundle(saved).build()
    assert not network.training
    with torch.no_grad():
        assert torch.equal(network(images), tiny_bundle.build()(images))


def test_the_files_are_the_documented_ones(tiny_bundle, tiny_path):
    assert sorted(path.name for path in tiny_path.iterdir()) == [
        "bundle.json",
        "card.md",
        "model.safetensors",
    ]
    manifest = json.loads((tiny_path / "bundle.json").read_text())
    assert manifest["schema"] == 1
    assert manifest["labels"] == list(tiny_bundle.labels)
    assert manifest["network"] == {"name": "googlenet_bn", "arguments": {"width": 0.05, "stem": "small"}}
    assert manifest["weights_sha256"] == sha256_file(tiny_path / "model.safetensors")
    assert (
        safetensors.torch.load_file(tiny_path / "model.safetensors").keys() == tiny_bundle.state_dict.keys()
    )


def test_the_card_says_what_the_manifest_says(tiny_bundle, tmp_path):
    bundle = replace(tiny_bundle, provenance={"data": "shapes", "seed": 7, "versions": {"torch": "2.9"}})
    save_bundle(bundle, tmp_path / "plain")
    card = (tmp_path / "plain" / "card.md").read_text()
    assert card.startswith("# googlenet_bn, 3 classes\n")
    for fact in ("amber, jade, violet", "32 x 32 RGB", "width=0.05", "data: shapes", "seed: 7", "torch=2.9"):
        assert fact in card
    assert "Nothing yet" in card
    measured = bundle.with_metrics(val={"n": 12, "top1": 0.75, "top5": 1.0, "loss": 0.5})
    save_bundle(replace(measured, labels=tuple(f"class {i}" for i in range(25))), tmp_path / "measured")
    card = (tmp_path / "measured" / "card.md").read_text()
    assert "| val | 12 | 75.00% | 100.00% | 0.5000 |" in card
    assert "class 19, … (5 more)" in card


def test_a_zip_of_the_folder_is_a_bundle_only_when_stored(tiny_bundle, tiny_path, tmp_path):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / f"{method}.zip", "w", method) as archive:
            for file in tiny_path.iterdir():
                archive.write(file, file.name)
    assert_same(load_bundle(tmp_path / f"{zipfile.ZIP_STORED}.zip"), tiny_bundle)
    with pytest.raises(BundleError, match=r"bundle.json is compressed.*zip -0"):
        load_bundle(tmp_path / f"{zipfile.ZIP_DEFLATED}.zip")


def test_a_newer_bundle_replaces_the_older(tiny_bundle, saved):
    save_bundle(replace(tiny_bundle, temperature=2.0), saved)
    assert load_bundle(saved).temperature == 2.0
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_nothing_else_is_overwritten(tiny_bundle, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    save_bundle(tiny_bundle, folder)  # an empty folder is fine
    (folder / "bundle.json").unlink()
    with pytest.raises(BundleError, match=r"photos exists and is not a bundle: choose another place"):
        save_bundle(tiny_bundle, folder)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(BundleError, match="is not a bundle"):
        save_bundle(tiny_bundle, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_a_place_that_cannot_be_written_is_a_bundle_error(tiny_bundle, tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=rf"cannot write the bundle to .*{name}: "):
        save_bundle(tiny_bundle, tmp_path / "file" / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
def test_a_read_only_folder_keeps_its_bundle(tiny_bundle, saved):
    saved.parent.chmod(0o555)
    try:
        with pytest.raises(BundleError, match="Permission denied"):
            save_bundle(replace(tiny_bundle, temperature=2.0), saved)
    finally:
        saved.parent.chmod(0o755)
    assert_same(load_bundle(saved), tiny_bundle)


@pytest.mark.parametrize("function", ["write_bytes", "rename"])
def test_a_full_disk_keeps_the_old_bundle(tiny_bundle, tmp_path, monkeypatch, function):
    save_bundle(tiny_bundle, tmp_path / "tiny")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, function, full)
    with pytest.raises(BundleError, match="No space left on device"):
        save_bundle(replace(tiny_bundle, temperature=2.0), tmp_path / "tiny")
    monkeypatch.undo()
    assert_same(load_bundle(tmp_path / "tiny"), tiny_bundle)
    assert os.listdir(tmp_path) == ["tiny"]  # noqa: PTH208 - hidden files count


def test_a_writer_that_dies_between_two_renames_loses_nothing(tiny_bundle, saved):
    if saved.suffix == ".zip":
        pytest.skip("a file is replaced in one step")
    saved.rename(saved.with_name(f".{saved.name}.old"))
    assert_same(load_bundle(saved), tiny_bundle)
    save_bundle(replace(tiny_bundle, temperature=2.0), saved)
    assert load_bundle(saved).temperature == 2.0
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_measurements_that_are_no_numbers_cannot_be_saved(tiny_bundle, tmp_path):
    with pytest.raises(BundleError, match="finite"):
        save_bundle(tiny_bundle.with_metrics(val={"loss": float("nan")}), tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_no_bundle_at_all(tmp_path):
    with pytest.raises(UsageError, match="there is no bundle at"):
        load_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"is not a bundle: bundle\.json is missing"):
        load_bundle(tmp_path)


def test_a_run_folder_points_to_its_bundle(tiny_bundle, tmp_path):
    save_bundle(tiny_bundle, tmp_path / "bundle")
    with pytest.raises(BundleError, match="it is a run folder: its bundle is"):
        load_bundle(tmp_path)


def test_the_manifest_has_a_size_limit(saved, monkeypatch):
    monkeypatch.setattr(manifest, "MANIFEST_LIMIT_BYTES", 100)
    with pytest.raises(BundleError, match="more than 100"):
        load_bundle(saved)
