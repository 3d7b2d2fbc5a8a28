"""Several labels an image from the table to the answer: training, evaluation, prediction, what refuses."""

import csv
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from shapes import COLOURS, tiny_config

from inception.cli.main import run
from inception.errors import BundleError, UsageError
from inception.evaluate.measure_labels import measure_labels
from inception.nets.output import Output
from inception.runtime.loading import load
from inception.train.losses import training_loss
from inception.train.mix import mix_batch
from inception.train.run import TrainResult, train_bundle
from inception.weights.bundle import load_bundle


def write_squares(folder, counts: dict[str, int]):
    """Pictures on which each of three colours is present or not, each in its own place."""
    folder.mkdir()
    rows, seed = ["path,split,labels"], 0
    for split, count in counts.items():
        for _ in range(count):
            rng = np.random.default_rng(seed)
            image = Image.fromarray(rng.integers(90, 160, (36, 36, 1), dtype=np.uint8).repeat(3, axis=2))
            present = [label for bit, label in enumerate(COLOURS) if seed >> bit & 1]
            for label in present:
                left = 12 * list(COLOURS).index(label)
                ImageDraw.Draw(image).rectangle((left, 4, left + 11, 31), fill=COLOURS[label])
            image.save(folder / f"{seed}.png")
            rows.append(f"{seed}.png,{split},{';'.join(present)}")
            seed += 1
    (folder / "set.csv").write_text("\n".join(rows) + "\n")
    return folder / "set.csv"


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("several") / "data", {"train": 64, "val": 16, "test": 16})


@pytest.fixture(scope="module")
def several(squares, tmp_path_factory) -> TrainResult:
    folder = tmp_path_factory.mktemp("several") / "run"
    return train_bundle(tiny_config(squares, folder, epochs=6, flip="no", augment="none"))


def test_the_loss_is_the_mean_over_images_and_labels():
    torch.manual_seed(0)
    logits, aux = torch.randn(4, 3), torch.randn(4, 3)
    targets = (torch.rand(4, 3) > 0.5).float()
    plain = training_loss(Output(logits, (aux,)), targets, 0.0, 0.3, None, True)
    by_hand = -(targets * F.logsigmoid(logits) + (1 - targets) * F.logsigmoid(-logits)).mean()
    assert plain - 0.3 * F.binary_cross_entropy_with_logits(aux, targets) == pytest.approx(float(by_hand))
    smoothed = training_loss(Output(logits), targets, 0.2, 0.3, None, True)
    assert smoothed == pytest.approx(float(F.binary_cross_entropy_with_logits(logits, targets * 0.8 + 0.1)))


def test_mixing_keeps_every_label():
    images, targets = torch.rand(6, 3, 8, 8), (torch.rand(6, 4) > 0.5).float()
    _, mixed = mix_batch(images, targets, 4, 1.0, 0.0, np.random.default_rng(3))
    torch.testing.assert_close(mixed.sum(0), targets.sum(0))


def test_it_learns_and_says_how_well(several, squares):
    assert several.metrics["n"] == 16
    assert several.metrics["map"] > 0.9
    rows = [json.loads(line) for line in (several.folder / "metrics.jsonl").read_text().splitlines()]
    assert {"train_exact", "val_map", "val_loss", "train_loss"} <= rows[-1].keys()
    assert not {"train_top1", "val_top1"} & rows[-1].keys()
    measured = measure_labels(load(several.bundle, "cpu"), squares)
    assert measured.split == "test"
    assert measured.evaluation.map > 0.9
    bundle = load_bundle(several.bundle)
    assert bundle.labels == tuple(COLOURS)
    assert len(bundle.thresholds) == 3
    assert bundle.temperature == 1.0
    assert json.loads((several.bundle / "bundle.json").read_text())["schema"] == 2
    assert "mAP" in (several.bundle / "card.md").read_text()
    assert bundle.provenance["recipe"]["label_smoothing"] == 0.0


def test_evaluate_writes_everything(several, squares, tmp_path, capsys):
    files = {name: tmp_path / name for name in ("page.html", "labels.csv", "images.csv")}
    code = run(
        [
            *("evaluate", str(several.bundle), str(squares), "--json", "--device", "cpu"),
            *("--report", str(files["page.html"]), "--per-class", str(files["labels.csv"])),
            *("--predictions", str(files["images.csv"])),
        ]
    )
    out, err = capsys.readouterr()
    assert code == 0, err
    content = json.loads(out)
    assert {"n", "map", "loss", "exact", "hamming", "micro", "macro", "classes"} <= content.keys()
    assert content["n"] == 16
    page = files["page.html"].read_text()
    assert "mAP" in page
    assert page.count("<svg") >= 4
    table = list(csv.DictReader(files["labels.csv"].open()))
    assert [row["label"] for row in table] == list(COLOURS)
    lines = list(csv.DictReader(files["images.csv"].open()))
    assert len(lines) == 16
    exact = sum(int(line["all_right"]) for line in lines) / 16
    assert exact == pytest.approx(content["exact"])
    assert all(0 <= float(line["probability of jade"]) <= 1 for line in lines)
    assert run(["evaluate", str(several.bundle), str(squares), "--threshold", "1", "--device", "cpu"]) == 0
    assert "macro F1" in capsys.readouterr().out


def test_predict_gives_every_label_that_reaches_its_threshold(several, squares, capsys):
    image = str(squares.parent / "3.png")  # amber and jade
    assert run(["predict", str(several.bundle), image, "--json", "--device", "cpu"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == {"path", "labels", "top"}
    thresholds = dict(zip(COLOURS, load_bundle(several.bundle).thresholds, strict=True))
    given = {score["label"] for score in answer["labels"]}
    assert given == {s["label"] for s in answer["top"] if s["probability"] >= thresholds[s["label"]]}
    assert run(["predict", str(several.bundle), image, "--threshold", "0", "--csv", "--device", "cpu"]) == 0
    [row] = csv.DictReader(capsys.readouterr().out.splitlines())
    assert set(row["labels"].split(";")) == set(COLOURS)
    assert run(["predict", str(several.bundle), image, "--threshold", "1", "--device", "cpu"]) == 0
    assert "none" in capsys.readouterr().out


def test_what_has_no_meaning_refuses(several, trained, squares, shapes, tmp_path, capsys):
    bundle, plain = str(several.bundle), str(trained.bundle)
    image = str(squares.parent / "1.png")
    for arguments, message in [
        (["predict", bundle, image, "--unknown"], "'unknown' is of bundles with one label"),
        (["predict", plain, image, "--threshold", "0.5"], "--threshold is for bundles with several"),
        (["evaluate", plain, str(shapes), "--threshold", "0.5"], "--threshold is for bundles with several"),
        (["evaluate", bundle, str(squares), "--crops", "10"], "--crops cannot be had"),
        (["evaluate", bundle, plain, str(squares)], "several bundles cannot be had"),
        (["calibrate", bundle, str(squares)], "one label an image"),
        (["robustness", bundle, str(squares)], "one label an image"),
        (["explain", bundle, image, "-o", str(tmp_path / "x.png")], "one label an image"),
        (["export", bundle, "--to", "onnx", "-o", str(tmp_path / "x.onnx")], "one label an image"),
        (["optimize", bundle, "-o", str(tmp_path / "fast")], "one label an image"),
        (
            ["train", str(squares), "--class-balance", "weights", "--output", str(tmp_path / "r")],
            "--class-bal",
        ),
    ]:
        assert run(arguments) == 2, arguments
        output = capsys.readouterr()
        assert message in output.err, (arguments, output.err)
    assert run(["evaluate", plain, str(squares)]) == 1
    assert "has several labels an image" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_it_is_fine_tuned_and_resumed(several, trained, squares, tmp_path):
    """From one label an image to several; and a bundle of several goes on being one."""
    config = tiny_config(squares, tmp_path / "run", weights=str(trained.bundle), width=1.0, epochs=1)
    result = train_bundle(config)
    assert load_bundle(result.bundle).thresholds is not None
    choice = json.loads((tmp_path / "run" / "choice.json").read_text())
    assert len(choice["pilots"]) == 4
    frozen = tiny_config(squares, tmp_path / "frozen", weights=str(trained.bundle), width=1.0, freeze=True)
    probe = train_bundle(frozen)
    assert probe.best_epoch == 0
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert probe.metrics["map"] == pytest.approx(first["val_map"])
    assert result.metrics["map"] >= probe.metrics["map"]
    again = tiny_config(
        squares,
        tmp_path / "again",
        weights=str(several.bundle),
        width=1.0,
        epochs=1,
        learning_rate=1e-6,
        unfreeze="all",
    )
    assert train_bundle(again).metrics["map"] == pytest.approx(several.metrics["map"], abs=0.05)


def test_a_damaged_threshold_is_refused(several, tmp_path):
    import shutil

    shutil.copytree(several.bundle, tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / "bundle.json").read_text())
    for wrong in ([0.5], [0.5, 0.5, 7.0], "half"):
        (tmp_path / "b" / "bundle.json").write_text(json.dumps({**manifest, "thresholds": wrong}))
        with pytest.raises(BundleError):
            load_bundle(tmp_path / "b")


def test_measure_labels_is_for_several(trained, squares):
    with pytest.raises(UsageError, match="one label an image"):
        measure_labels(load(trained.bundle, "cpu"), squares)


def test_val_images_without_any_label_leave_the_usual_thresholds(squares, tmp_path):
    lines = squares.read_text().splitlines()
    emptied = [line.rsplit(",", 1)[0] + "," if ",val," in line else line for line in lines]
    csv = squares.with_name("emptied.csv")
    csv.write_text("\n".join(emptied) + "\n")
    result = train_bundle(tiny_config(csv, tmp_path / "run", epochs=1))
    assert result.metrics == {}
    assert set(load_bundle(result.bundle).thresholds) == {0.5}
