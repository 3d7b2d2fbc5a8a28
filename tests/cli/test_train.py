"""`inception train`, `import` and `check` as scripts call them."""

import json
import subprocess
import sys

import pytest
import torch
from shapes import write_shapes

from inception.nets.registry import build_network
from inception.weights.bundle import load_bundle

TINY = ["--width", "0.05", "--epochs", "1", "--batch-size", "16", "--device", "cpu", "--precision", "float32"]


@pytest.mark.parametrize("form", ["json", "table"])
def test_train_leaves_what_scripts_rely_on(inception, shapes, tmp_path, form):
    extra = ["--json"] if form == "json" else []
    outcome = inception("train", shapes, "--output", tmp_path / "run", "--seed", "2", *TINY, *extra)
    assert outcome.code == 0
    bundle = tmp_path / "run" / "bundle"
    assert load_bundle(bundle).provenance["seed"] == 2
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1]
    if form == "json":
        content = outcome.json()
        assert content["bundle"] == str(bundle)
        assert content["val"]["n"] == 12
        assert content["unreadable"] == 0
    else:
        assert "val top-1" in outcome.out
    assert "48 training images" in outcome.err
    assert "epoch   1" in outcome.err


def test_freeze_and_weights(inception, trained, shapes, tmp_path):
    outcome = inception(
        "train", shapes, "--weights", trained.bundle, "--freeze", "--output", tmp_path / "run", "--json"
    )
    assert outcome.code == 0
    content = outcome.json()
    assert content["best_epoch"] == 0
    assert content["val"]["top1"] >= 0.9


def test_a_used_folder_is_refused_with_advice_and_resume_continues(inception, shapes, tmp_path):
    arguments = ["train", shapes, "-o", tmp_path / "run", *TINY, "--json"]
    assert inception(*arguments).code == 0
    again = inception(*arguments)
    assert (again.code, again.out) == (2, "")
    assert "continue it with --resume, or choose another --output" in again.err
    assert inception(*arguments, "--resume").code == 0
    assert inception("train", "--output", tmp_path / "run", "--resume", "--json").code == 0


def test_skipped_images_are_counted(inception, tmp_path):
    data = write_shapes(tmp_path / "data", {"train": 4, "val": 1})
    for index in range(3):
        (data / "train" / "jade" / f"{index:02}.png").write_bytes(b"")
    outcome = inception("train", data, "--output", tmp_path / "run", *TINY, "--json")
    assert outcome.json()["unreadable"] == 3
    assert outcome.err.count("skipped train/jade/") == 3


def test_import_writes_a_bundle_and_lists_what_was_not_used(inception, tmp_path):
    state = build_network("googlenet_bn", num_classes=4).state_dict()
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "weights.pth")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    base = ["import", tmp_path / "weights.pth", "--as", "googlenet_bn", "--labels", tmp_path / "names.txt"]
    outcome = inception(*base, "-o", tmp_path / "bundle", "--json")
    assert outcome.code == 0
    found = outcome.json()
    assert any("preprocessing" in remark for remark in found.pop("remarks"))
    assert found.pop("preprocess")["width"] == 224
    assert found == {
        "bundle": str(tmp_path / "bundle"),
        "network": "googlenet_bn",
        "classes": 4,
        "missing": [],
        "unexpected": ["extra"],
        "tool": "inception",
        "format": "torch",
    }
    assert "extra" in outcome.err
    assert load_bundle(tmp_path / "bundle").labels == ("a", "b", "c", "d")
    assert "googlenet_bn" in inception(*base, "-o", tmp_path / "bundle").out
    first = next(iter(state))
    del state[first]
    torch.save(state, tmp_path / "weights.pth")
    failed = inception(*base, "-o", tmp_path / "other", "--json")
    assert (failed.code, failed.out) == (1, "")
    assert f"1 missing ({first})" in failed.err
    assert not (tmp_path / "other").exists()


def test_check_finds_a_damaged_file(inception, shapes, tmp_path):
    assert inception("check", shapes, "--json", "--min-size", "1").json()["images"] == 72
    data = write_shapes(tmp_path / "data", {"train": 2, "val": 1})
    (data / "train" / "jade" / "00.png").write_bytes(b"")
    outcome = inception("check", data, "--json")
    assert outcome.code == 1
    assert "train/jade/00.png" in json.dumps(outcome.json()["unreadable"])
    table = inception("check", data)
    assert table.code == 1
    assert "train/jade/00.png" in table.out


def test_the_whole_job_in_a_process_of_its_own(shapes, tmp_path):
    """As a person types it: train, evaluate, predict, each by the installed module."""

    def call(*arguments: object) -> str:
        script = "import torch; torch.set_num_threads(1); from inception.cli.main import main; main()"
        command = [sys.executable, "-c", script, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout

    call("train", shapes, "--output", tmp_path / "run", *TINY[:2], "--epochs", "4", "--batch-size", "8")
    measured = json.loads(call("evaluate", tmp_path / "run" / "bundle", shapes, "--json"))
    assert measured["top1"] > 0.6
    picture = next((shapes / "test" / "jade").iterdir())
    answer = json.loads(call("predict", tmp_path / "run" / "bundle", picture, "--json"))
    assert answer["path"] == str(picture)
    assert answer["top"][0]["label"] == "jade"
