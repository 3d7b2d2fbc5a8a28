"""Fine-tuning that chooses: candidates, the one-standard-error rule, the probe as floor, no side effects."""

import json

import pytest
from shapes import tiny_config, write_shapes
from test_run import fine_shapes, rows, same_weights  # noqa: F401

from inception.nets.registry import build_network
from inception.train import range_test
from inception.train.choose import Candidate, Pilot, _best, candidates
from inception.train.config import TrainConfig, resolve
from inception.train.layers import last_third
from inception.train.run import train_bundle
from inception.weights.bundle import load_bundle


def network():
    return build_network("googlenet_bn", num_classes=2, width=0.05, stem="small")


def test_the_last_third_of_googlenet():
    assert last_third(build_network("googlenet", num_classes=2, width=0.05)) == "inception4d"


def test_candidates_are_what_is_left_open():
    def found(**options):
        asked = TrainConfig(data="x", **{"weights": "b", **options})
        return candidates(asked, resolve(asked, 500, 300, 224, True), network())

    stage = last_third(network())
    assert found() == (
        Candidate("all", 1e-4),
        Candidate("all", 3e-4),
        Candidate(stage, 1e-4),
        Candidate(stage, 3e-4),
    )
    assert found(learning_rate=0.01) == (Candidate("all", 0.01), Candidate(stage, 0.01))
    assert found(unfreeze="inception5a") == (Candidate("inception5a", 1e-4), Candidate("inception5a", 3e-4))
    assert found(unfreeze="all", learning_rate=0.01) == ()
    assert found(freeze=True) == ()
    assert found(weights="") == ()
    assert found(recipe="paper") == ()
    assert len(found(find_learning_rate=True)) == 2


class Hundred:
    """A setting whose val split has 100 images."""

    val = range(100)


@pytest.mark.parametrize(
    "scores, expected",
    [
        ((0.80, 0.83), 0),
        ((0.80, 0.90), 1),
        ((0.80, 0.70), 0),
        ((0.5, 0.54, 0.60), 2),
        ((0.9, 0.97, 0.96), 1),
        ((0.99, 1.0), 0),
    ],
)
def test_the_first_stays_unless_another_is_clearly_better(scores, expected):
    pilots = [Pilot("all", 0.1 * index, score, 1.0) for index, score in enumerate(scores)]
    assert _best(pilots, Hundred()) == pilots[expected]


def test_choosing_changes_nothing_else(trained, fine_shapes, tmp_path):  # noqa: F811
    """The same bits as a run that was told what was chosen."""
    options = {"weights": str(trained.bundle), "width": 1.0}
    free = train_bundle(tiny_config(fine_shapes, tmp_path / "free", **options))
    choice = json.loads((tmp_path / "free" / "choice.json").read_text())
    assert len(choice["pilots"]) == 4
    assert load_bundle(free.bundle).provenance["choice"] == choice
    chosen = choice["chosen"]
    told = {"unfreeze": chosen["unfreeze"], "learning_rate": chosen["learning_rate"]}
    fixed = train_bundle(tiny_config(fine_shapes, tmp_path / "fixed", **options, **told))
    assert not (tmp_path / "fixed" / "choice.json").exists()
    assert same_weights(load_bundle(free.bundle), load_bundle(fixed.bundle))


def test_no_epoch_clearly_below_the_probe_is_kept(trained, tmp_path):
    """A rate that ruins the network: the bundle is the probe's."""
    data = write_shapes(tmp_path / "data", {"train": 8, "val": 4})
    for split in ("train", "val"):
        (data / split / "violet").rename(data / split / "purple")
    config = tiny_config(
        data,
        tmp_path / "run",
        weights=str(trained.bundle),
        width=1.0,
        learning_rate=0.5,
        unfreeze="all",
        epochs=2,
    )
    result = train_bundle(config)
    probe, *others = rows(tmp_path / "run")
    assert max(row["val_top1"] for row in others) < probe["val_top1"]
    assert result.best_epoch == 0
    assert result.metrics["top1"] == probe["val_top1"]


def test_a_range_test_settles_the_rate_of_the_pilots(trained, fine_shapes, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(range_test, "STEPS", 30)
    config = tiny_config(
        fine_shapes,
        tmp_path / "run",
        weights=str(trained.bundle),
        width=1.0,
        find_learning_rate=True,
        epochs=1,
    )
    result = train_bundle(config)
    found = json.loads((tmp_path / "run" / "learning_rate.json").read_text())
    provenance = load_bundle(result.bundle).provenance
    assert provenance["recipe"]["learning_rate"] == found["suggestion"]
    tried = {(pilot["unfreeze"], pilot["learning_rate"]) for pilot in provenance["choice"]["pilots"]}
    stage = last_third(network())
    assert tried == {("all", found["suggestion"]), (stage, found["suggestion"])}
