"""A sweep: its folder, its best options, going on after a stop, and never a look at the test split."""

import json
import tomllib
from dataclasses import replace

import pytest
from shapes import tiny_config, write_shapes

from inception.cli.main import run
from inception.errors import UsageError
from inception.train import sweep as sweep_module
from inception.train.config import TrainConfig, read_config
from inception.train.interrupt import Interrupted
from inception.train.log import Silent
from inception.train.run import TrainResult
from inception.train.sweep import BEST_FILE, PICTURE_FILE, SPACE, TRIALS_FILE, sweep, to_toml
from inception.weights.bundle import load_bundle

pytest.importorskip("optuna", reason="needs the extra 'sweep'")
OVER = ("learning_rate", "label_smoothing")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Shapes whose test images cannot be read: who looks at them fails."""
    folder = write_shapes(tmp_path_factory.mktemp("sweep") / "data", {"train": 6, "val": 4, "test": 2})
    for image in (folder / "test").rglob("*.png"):
        image.write_bytes(b"not to be read")
    return folder


def config(data, folder, **options) -> TrainConfig:
    return tiny_config(data, folder, epochs=1, strict=True, **options)


@pytest.fixture(scope="module")
def swept(data, tmp_path_factory):
    return sweep(config(data, tmp_path_factory.mktemp("sweep") / "s"), 3, OVER, Silent())


def test_what_it_leaves(swept):
    content = json.loads((swept.folder / TRIALS_FILE).read_text())
    assert [trial["number"] for trial in content["trials"]] == [0, 1, 2]
    assert content["best"]["score"] == max(trial["score"] for trial in content["trials"])
    assert (swept.folder / PICTURE_FILE).stat().st_size > 5000
    for trial in swept.trials:
        place = swept.folder / "trials" / f"{trial.number:03}"
        assert (place / "metrics.jsonl").exists()
        assert (place / "bundle").exists() == (trial.number == swept.best.number)


def test_the_first_trial_is_the_recipes_own_and_the_others_are_not(swept):
    first, second, _ = swept.trials
    assert first.options == {"learning_rate": 0.05, "label_smoothing": 0.1}
    assert second.options != first.options
    assert 0.005 <= second.options["learning_rate"] <= 0.5


def test_train_takes_the_best_options(swept, data):
    values = read_config(swept.folder / BEST_FILE)
    best = TrainConfig.from_dict(values)
    assert {name: getattr(best, name) for name in OVER} == swept.best.options
    assert (best.width, best.epochs, best.data, best.output) == (0.05, 1, str(data), "")


def test_a_folder_of_any_name_holds_its_own_study(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "s w%20?x#y"
    sweep(config(data, folder), 1, OVER, Silent())
    assert (folder / "study.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_without_a_val_split_nothing_is_trained(tmp_path):
    folder = write_shapes(tmp_path / "data", {"train": 6})
    with pytest.raises(UsageError, match="a sweep needs a val split"):
        sweep(config(folder, tmp_path / "s", val_fraction=0.0), 1, OVER, Silent())
    assert not (tmp_path / "s").exists()


def test_the_best_options_of_fine_tuning_pin_what_would_be_chosen_anew(data, trained, tmp_path):
    tuned = replace(config(data, tmp_path / "s", weights=str(trained.bundle)), width=1.0)
    result = sweep(tuned, 1, ("label_smoothing",), Silent())
    best = read_config(result.folder / BEST_FILE)
    recipe = load_bundle(result.folder / "trials" / "000" / "bundle").provenance["recipe"]
    assert {name: best[name] for name in ("unfreeze", "learning_rate")} == {
        name: recipe[name] for name in ("unfreeze", "learning_rate")
    }


def test_it_goes_on_where_it_was(swept, data):
    more = sweep(config(data, swept.folder), 4, OVER, Silent())
    assert more.trials[:3] == swept.trials
    assert len(more.trials) == 4
    assert sweep(config(data, swept.folder), 2, OVER, Silent()).trials == more.trials
    with pytest.raises(UsageError, match="holds a sweep with other options"):
        sweep(config(data, swept.folder, seed=5), 5, OVER, Silent())
    with pytest.raises(UsageError, match="over label_smoothing"):
        sweep(config(data, swept.folder), 5, ("dropout",), Silent())


def test_a_trial_that_was_cut_short_is_tried_again(data, tmp_path, monkeypatch):
    real, taken = sweep_module.train_bundle, []

    def stopped(given, observer):
        taken.append(given)
        if len(taken) == 2:
            raise Interrupted("stopped")
        return real(given, observer)

    monkeypatch.setattr(sweep_module, "train_bundle", stopped)
    with pytest.raises(Interrupted, match="the same command goes on"):
        sweep(config(data, tmp_path / "s"), 2, OVER, Silent())
    result = sweep(config(data, tmp_path / "s"), 2, OVER, Silent())
    assert len(result.trials) == 2
    assert len(taken) == 3
    assert (taken[2].learning_rate, taken[2].label_smoothing) == (
        taken[1].learning_rate,
        taken[1].label_smoothing,
    )


def test_a_bad_trial_is_stopped_early(data, tmp_path, monkeypatch):
    import optuna

    class Always(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number > 0

    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda **given: Always())
    result = sweep(config(data, tmp_path / "s"), 2, OVER, Silent())
    assert [trial.state for trial in result.trials] == ["complete", "pruned"]
    assert result.best.number == 0


def test_rates_are_those_of_the_trials_own_optimiser(data, tmp_path, monkeypatch):
    taken = []

    def untrained(given, observer):
        taken.append(given)
        return TrainResult(tmp_path, tmp_path, {"top1": 0.5}, 1, {})

    monkeypatch.setattr(sweep_module, "train_bundle", untrained)
    monkeypatch.setattr(sweep_module, "draw_sweep", lambda *given: None)
    sweep(config(data, tmp_path / "s"), 8, ("learning_rate", "optimizer"), Silent())
    assert (taken[0].optimizer, taken[0].learning_rate) == ("muon", 0.05)
    own = {"muon": 0.05, "sgd": 0.05, "adamw": 0.001, "rmsprop": 0.045}
    assert len({given.optimizer for given in taken}) > 2
    for given in taken:
        assert 0.0999 <= given.learning_rate / own[given.optimizer] <= 10.01


def test_toml_of_every_kind():
    options = {"data": 'a "b"\\c', "epochs": 3, "learning_rate": 1e-05, "strict": True, "warmup": 0.0}
    assert {k.replace("-", "_"): v for k, v in tomllib.loads(to_toml(options)).items()} == options


def test_every_swept_option_is_one_of_training():
    assert SPACE.keys() <= TrainConfig.__dataclass_fields__.keys()


def test_wrong_requests(data, tmp_path, capsys):
    for arguments, message in [
        (["--over", "epochs"], "--over takes learning_rate"),
        (["--freeze"], "--freeze has no place in a sweep"),
        (["--resume"], "--resume has no place"),
    ]:
        assert run(["sweep", str(data), "--output", str(tmp_path / "s"), *arguments]) == 2
        assert message in capsys.readouterr().err
    assert run(["sweep"]) == 2
    assert not (tmp_path / "s").exists()


def test_it_is_no_work_for_torchrun(data, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="without torchrun"):
        sweep(config(data, tmp_path / "s"), 1, OVER, Silent())


def test_without_optuna_the_extra_is_named(data, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'inception\[sweep\]'"):
        sweep(config(data, tmp_path / "s"), 1, OVER, Silent())
