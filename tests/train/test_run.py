"""A whole run on three coloured shapes: it learns, and leaves what it should."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from shapes import COLOURS, shape_picture, tiny_config, write_shapes

from inception.data.sources import open_dataset
from inception.errors import DataError, TrainingError, UsageError
from inception.evaluate.measure import evaluate_bundle
from inception.runtime.loading import load
from inception.train import loop as loop_module
from inception.train.log import Silent
from inception.train.run import train_bundle
from inception.weights.bundle import Bundle, load_bundle, save_bundle


@pytest.fixture(scope="module")
def trained_bundle(trained) -> Bundle:
    return load_bundle(trained.bundle)


@pytest.fixture
def fine_shapes(tmp_path):
    """Two other classes than the bundle knows."""
    for label, colour in {"lime": (180, 250, 30), "navy": (10, 20, 110)}.items():
        for index in range(12):
            split = "train" if index < 8 else "val"
            folder = tmp_path / "fine" / split / label
            folder.mkdir(parents=True, exist_ok=True)
            picture = shape_picture("jade", index)
            picture.paste(colour, (5, 5, 25, 25))
            picture.save(folder / f"{index}.png")
    return tmp_path / "fine"


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_weights(ours: Bundle, theirs: Bundle) -> bool:
    return all(torch.equal(ours.state_dict[name], value) for name, value in theirs.state_dict.items())


def test_it_learns_what_it_has_not_seen(trained, shapes):
    evaluation = evaluate_bundle(load(trained.bundle, "cpu"), shapes).evaluation
    assert evaluation.n == 12
    assert evaluation.top1 >= 0.9
    assert trained.metrics["top1"] >= 0.9
    assert trained.metrics["n"] == 12
    answer = load(trained.bundle, "cpu").predict(shape_picture("violet", 999))[0]
    assert answer.label == "violet"


def test_the_run_folder(trained):
    names = {path.name for path in trained.folder.iterdir()}
    assert {"bundle", "metrics.jsonl", "checkpoints", "curves.png", "tensorboard"} <= names
    assert not [name for name in names if name.endswith((".tmp", ".old"))]
    with Image.open(trained.folder / "curves.png") as curves:
        assert min(curves.size) > 200
    assert list((trained.folder / "tensorboard").glob("events.*"))
    lines = rows(trained.folder)
    assert [row["epoch"] for row in lines] == [1, 2, 3, 4]
    for row in lines:
        assert {
            "train_loss",
            "train_top1",
            "val_loss",
            "val_top1",
            "learning_rate",
            "images_per_s",
        } <= row.keys()
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]


def test_the_bundle_says_how_it_was_made(trained, trained_bundle, shapes):
    provenance = trained_bundle.provenance
    assert provenance["data_fingerprint"] == open_dataset(shapes).fingerprint
    assert provenance["training_images"] == 48
    assert provenance["seed"] == 0
    assert provenance["epoch"] == trained.best_epoch
    assert provenance["versions"]["torch"] == torch.__version__
    assert provenance["recipe"]["epochs"] == 4
    assert provenance["recipe"]["learning_rate"] > 0
    assert trained_bundle.labels == tuple(COLOURS)
    assert trained_bundle.metrics["val"] == trained.metrics
    assert 0 <= trained_bundle.unknown_threshold <= 1
    assert (trained_bundle.preprocess.height, trained_bundle.arguments["stem"]) == (32, "small")
    assert "| val | 12 |" in (trained.bundle / "card.md").read_text()


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(shapes, tmp_path):
    bundles = [
        load_bundle(
            train_bundle(tiny_config(shapes, tmp_path / name, epochs=1, seed=seed, workers=workers)).bundle
        )
        for name, seed, workers in (("a", 3, 1), ("b", 3, 4), ("c", 4, 2))
    ]
    assert same_weights(bundles[1], bundles[0])
    assert not same_weights(bundles[2], bundles[0])


def test_without_a_val_split_the_last_epoch_is_kept(tmp_path):
    data = write_shapes(tmp_path / "data", {"train": 5, "test": 1})
    (data / "test").rename(tmp_path / "away")
    result = train_bundle(tiny_config(data, tmp_path / "run", val_fraction=0.0))
    assert result.metrics == {}
    assert result.best_epoch == 2
    bundle = load_bundle(result.bundle)
    assert bundle.unknown_threshold is None
    assert bundle.temperature == 1.0


def test_unreadable_images_are_skipped_and_counted_or_refused(tmp_path):
    data = write_shapes(tmp_path / "data", {"train": 4, "val": 2})
    (data / "train" / "jade" / "00.png").write_bytes(b"")
    (data / "train" / "amber" / "02.png").write_bytes(b"no image")
    result = train_bundle(tiny_config(data, tmp_path / "run", epochs=1, batch_size=1))
    assert sorted(result.unreadable) == ["train/amber/02.png", "train/jade/00.png"]
    with pytest.raises(DataError, match="--strict"):
        train_bundle(tiny_config(data, tmp_path / "strict", epochs=1, strict=True))


@pytest.mark.parametrize("options", [{"recipe": "paper"}, {"optimizer": "adamw"}, {"ema_decay": 0.0}])
@pytest.mark.parametrize("model", ["googlenet", "googlenet_tv"])
def test_other_recipes_and_networks_train(tmp_path, options, model):
    data = write_shapes(tmp_path / "data", {"train": 2, "val": 1})
    result = train_bundle(tiny_config(data, tmp_path / "run", epochs=1, model=model, batch_size=4, **options))
    assert load_bundle(result.bundle).network == model


@pytest.mark.parametrize("model", ["googlenet_bn", "googlenet_tv"])
def test_a_last_batch_of_one_image_does_not_break_batch_norm(tmp_path, model):
    """At 8x8 the last maps are single pixels: batch norm alone cannot train on one of them."""
    data = write_shapes(tmp_path / "data", {"train": 3, "val": 1})
    config = tiny_config(data, tmp_path / "run", epochs=1, batch_size=8, image_size=8, model=model)
    assert train_bundle(config).best_epoch == 1


def test_an_image_size_the_network_cannot_take_is_refused_at_once(shapes, tmp_path):
    with pytest.raises(UsageError, match=r"(?i)image.size"):
        train_bundle(tiny_config(shapes, tmp_path / "run", image_size=4))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(shapes, tmp_path):
    config = tiny_config(
        shapes, tmp_path / "run", model="googlenet", learning_rate=1000.0, epochs=9, warmup=0.3
    )
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) in epoch \d+.*lower --learning-rate"):
        train_bundle(config)
    assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_after_such_a_loss_the_last_checkpoint_is_still_there(shapes, tmp_path, monkeypatch):
    from inception.train import step

    calls = []

    def poisoned(*arguments):
        calls.append(1)
        loss = real(*arguments)
        return loss * float("nan") if len(calls) > 8 else loss

    real = step.training_loss
    monkeypatch.setattr(step, "training_loss", poisoned)
    with pytest.raises(TrainingError, match=r"the loss became nan in epoch 2, step 9"):
        train_bundle(tiny_config(shapes, tmp_path / "run"))
    monkeypatch.undo()
    result = train_bundle(tiny_config(shapes, tmp_path / "run", resume=True))
    straight = train_bundle(tiny_config(shapes, tmp_path / "straight"))
    assert same_weights(load_bundle(result.bundle), load_bundle(straight.bundle))


def test_a_loss_on_val_that_is_not_finite_keeps_the_bundle_of_before(shapes, tmp_path, monkeypatch):
    losses = iter([(1.0, 0.5), (math.nan, 0.5)])
    monkeypatch.setattr(loop_module, "validate", lambda *_: next(losses))
    with pytest.raises(TrainingError, match="the loss on val became nan in epoch 2"):
        train_bundle(tiny_config(shapes, tmp_path / "run", epochs=3))
    assert load_bundle(tmp_path / "run" / "bundle").provenance["epoch"] == 1


def test_freeze_trains_the_classifier_alone(trained, trained_bundle, fine_shapes, tmp_path):
    config = tiny_config(fine_shapes, tmp_path / "run", weights=str(trained.bundle), freeze=True, width=1.0)
    observer, messages = Silent(), []
    observer.message = messages.append
    result = train_bundle(config, observer)
    assert any("takes no steps" in text and "--epochs" in text for text in messages)
    tuned = load_bundle(result.bundle)
    assert tuned.labels == ("lime", "navy")
    assert result.best_epoch == 0
    assert result.metrics["top1"] == 1.0
    for name, value in trained_bundle.state_dict.items():
        if not name.startswith("fc"):
            assert torch.equal(tuned.state_dict[name], value), name
    assert tuned.preprocess == trained_bundle.preprocess
    [row] = rows(tmp_path / "run")
    assert row["epoch"] == 0
    assert row["train_top1"] >= 0.8
    # Asking for it again does nothing new.
    again = train_bundle(replace(config, resume=True))
    assert same_weights(load_bundle(again.bundle), tuned)
    assert len(rows(tmp_path / "run")) == 1


def tune(trained, data, folder, **options) -> Bundle:
    config = tiny_config(data, folder, weights=str(trained.bundle), width=1.0, learning_rate=1e-3, **options)
    return load_bundle(train_bundle(config).bundle)


def test_fine_tuning_keeps_batch_norm_statistics_on_small_sets(
    trained, trained_bundle, fine_shapes, tmp_path
):
    tuned = tune(trained, fine_shapes, tmp_path / "run")
    assert tuned.labels == ("lime", "navy")
    assert tuned.preprocess.height == 32
    moved = frozen = 0
    for name, value in trained_bundle.state_dict.items():
        if "running" in name:
            frozen += 1
            assert torch.equal(tuned.state_dict[name], value), name
        elif name.endswith("conv.weight"):
            moved += not torch.equal(tuned.state_dict[name], value)
    assert frozen > 50
    assert moved > 50
    # Enough epochs that the best is not below the probe, which would then be the bundle.
    free = tune(trained, fine_shapes, tmp_path / "free", batch_norm="train", epochs=3)
    assert not torch.equal(
        free.state_dict["conv1.bn.running_mean"], trained_bundle.state_dict["conv1.bn.running_mean"]
    )


def test_stages_below_unfreeze_do_not_change(trained, trained_bundle, shapes, tmp_path):
    # The same classes: without a probe there is nothing that the epochs could fall behind.
    tuned = tune(trained, shapes, tmp_path / "run", unfreeze="Mixed_5b", batch_norm="train")
    for name, value in trained_bundle.state_dict.items():
        trainable = name.startswith(("inception5a", "inception5b", "fc"))
        if not trainable:
            assert torch.equal(tuned.state_dict[name], value), name
    for name in ("inception5a.b1x1.conv.weight", "inception5b.b1x1.conv.weight"):
        assert not torch.equal(tuned.state_dict[name], trained_bundle.state_dict[name])


def test_fine_tuning_on_the_same_classes_starts_from_the_classifier_too(trained, shapes, tmp_path):
    tune(trained, shapes, tmp_path / "run", epochs=1)
    first = rows(tmp_path / "run")[0]
    assert first["epoch"] == 1  # no probe
    assert first["val_top1"] >= 0.9


def test_every_bundle_can_be_trained_on(tiny_bundle, fine_shapes, tmp_path):
    """Preprocessing that is not square, BGR, and a bundle in a zip stay as they are."""
    odd = replace(tiny_bundle.preprocess, height=32, width=40, color="BGR", value_range=255.0)
    save_bundle(replace(tiny_bundle, preprocess=odd), tmp_path / "odd.zip")
    config = tiny_config(
        fine_shapes, tmp_path / "run", weights=str(tmp_path / "odd.zip"), width=1.0, epochs=1
    )
    assert load_bundle(train_bundle(config).bundle).preprocess == odd


WRONG = {
    "nothing to train on": ({"data": ""}, UsageError, "say what to train on"),
    "no such data": ({"data": "nowhere"}, UsageError, "no file or folder"),
    "no such model": ({"model": "googlenett"}, UsageError, "did you mean"),
    "no such weights": ({"weights": "nowhere"}, UsageError, "no bundle"),
    "no such device": ({"device": "abacus"}, UsageError, "--device cpu"),
    "freeze without weights": ({"freeze": True}, UsageError, "weights"),
    "unfreeze without weights": ({"unfreeze": "inception5a"}, UsageError, "weights"),
    "kept statistics without weights": ({"batch_norm": "frozen"}, UsageError, "weights"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_leave_nothing_behind(case, shapes, tmp_path):
    options, error, message = WRONG[case]
    config = replace(tiny_config(shapes, tmp_path / "run"), **options)
    with pytest.raises(error, match=message) as caught:
        train_bundle(config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_wrong_wishes_about_the_weights(trained, shapes, tmp_path):
    for options, message in [
        ({"model": "googlenet"}, "holds a googlenet_bn"),
        ({"unfreeze": "inception9z"}, "inception"),
    ]:
        config = tiny_config(shapes, tmp_path / "run", weights=str(trained.bundle), width=1.0, **options)
        with pytest.raises(UsageError, match=message):
            train_bundle(config)
        assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_not_overwritten(trained, shapes):
    with pytest.raises(
        UsageError, match=r"holds a run already: continue it with --resume, or choose another"
    ):
        train_bundle(tiny_config(shapes, trained.folder))


def test_data_without_training_images_or_without_readable_ones(tmp_path):
    only_test = write_shapes(tmp_path / "only", {"test": 2})
    with pytest.raises(DataError, match="no training images"):
        train_bundle(tiny_config(only_test, tmp_path / "run"))
    broken = write_shapes(tmp_path / "broken", {"train": 2, "val": 1})
    for file in broken.rglob("*.png"):
        file.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="can be read"):
        train_bundle(tiny_config(broken, tmp_path / "run"))
    shutil.rmtree(broken)


def test_a_run_inside_its_data_is_refused(shapes, monkeypatch):
    for output in (shapes / "run", shapes / "train" / "run"):
        with pytest.raises(UsageError, match="would lie inside the data"):
            train_bundle(tiny_config(shapes, output))
        assert not output.exists()
    monkeypatch.chdir(shapes)
    with pytest.raises(UsageError, match=f"runs/{shapes.name}-googlenet_bn would lie inside"):
        train_bundle(tiny_config(Path(), ""))


def test_val_without_a_readable_image_is_said_in_the_first_epoch(tmp_path):
    data = write_shapes(tmp_path / "data", {"train": 4, "val": 2})
    pictures = sorted((data / "val").rglob("*.png"))
    for picture in pictures:
        picture.write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the 6 images of val can be read"):
        train_bundle(tiny_config(data, tmp_path / "run", epochs=2))
    shape_picture("amber", 1).save(pictures[0])
    result = train_bundle(tiny_config(data, tmp_path / "other", epochs=1))
    assert len(result.unreadable) == 5


def test_a_batch_norm_over_one_number_is_one_sentence(shapes, tmp_path):
    config = tiny_config(shapes, tmp_path / "run", model="inception_v3", image_size=75, width=0.1)
    with pytest.raises(UsageError, match="raise --batch-size or lower --accumulation"):
        train_bundle(replace(config, batch_size=2, accumulation=2, epochs=1))


def test_frozen_classifiers_know_no_balance(trained, fine_shapes, tmp_path):
    config = tiny_config(fine_shapes, tmp_path / "run", weights=str(trained.bundle), freeze=True, width=1.0)
    with pytest.raises(UsageError, match="drop --class-balance"):
        train_bundle(replace(config, class_balance="weights"))
