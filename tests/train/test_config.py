"""Every option from a dictionary, TOML and the command line; what `auto` becomes; what is refused."""

import dataclasses
import json

import click
import pytest
from shapes import tiny_config

from inception.cli.main import run
from inception.cli.train import train
from inception.data.augment import AUGMENTS
from inception.data.options import ReadOptions
from inception.errors import UsageError
from inception.train.config import TrainConfig, read_config, resolve
from inception.train.recipes import RECIPES

FIELDS = {item.name: item for item in dataclasses.fields(TrainConfig)}
# A value other than the default for each option.
OTHER = {
    "data": "photos",
    "data_root": "sets",
    "classes": "leaf",
    "label_from": "([a-z]+)_",
    "path_column": "photo",
    "label_column": "species",
    "split_column": "part",
    "label_separator": "|",
    "val_fold": "0",
    "test_fold": "1",
    "encoding": "cp1252",
    "allow_left_out": True,
    "root": "pictures",
    "output": "runs/x",
    "model": "googlenet",
    "weights": "some/bundle",
    "recipe": "paper",
    "epochs": 7,
    "batch_size": 48,
    "accumulation": 2,
    "checkpoint_gradients": True,
    "image_size": 96,
    "bits": 12,
    "width": 0.5,
    "optimizer": "adamw",
    "learning_rate": 0.02,
    "find_learning_rate": True,
    "momentum": 0.8,
    "nesterov": "no",
    "weight_decay": 0.003,
    "clip_gradient": 1.5,
    "schedule": "constant",
    "warmup": 0.25,
    "label_smoothing": 0.05,
    "aux_weight": 0.2,
    "ema_decay": 0.95,
    "dropout": 0.3,
    "augment": "crop",
    "whiten": "yes",
    "compile": "yes",
    "kernels": "no",
    "mixup": 0.2,
    "cutmix": 1.0,
    "class_balance": "weights",
    "flip": "no",
    "freeze": True,
    "unfreeze": "inception5a",
    "batch_norm": "frozen",
    "batch_norm_across": "each",
    "layer_decay": 0.75,
    "patience": 5,
    "skip_nonfinite": True,
    "val_fraction": 0.2,
    "precision": "float32",
    "device": "cpu",
    "workers": 3,
    "cache_gib": 0.5,
    "cache_folder": "somewhere",
    "seed": 11,
    "strict": True,
    "checkpoint_seconds": 30.0,
    "checkpoint_steps": 100,
    "keep_checkpoints": 5,
    "resume": True,
}


@pytest.fixture
def parsed(monkeypatch):
    """The configuration a command line leads to, without training."""
    taken = []

    class Stop(click.Abort):
        pass

    def keep(config, observer=None, said=None):
        taken.append(config)
        raise Stop

    monkeypatch.setattr("inception.train.run.train_bundle", keep)

    def parse(*arguments: str) -> TrainConfig:
        taken.clear()
        assert run(["train", *arguments]) == 130
        return taken[0]

    return parse


def test_the_table_of_other_values_is_complete():
    assert OTHER.keys() == FIELDS.keys()
    assert all(OTHER[name] != item.default for name, item in FIELDS.items())


def toml(values: dict) -> str:
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "data"])
def test_every_option_comes_from_the_command_line_and_from_toml(name, parsed, tmp_path):
    flag, value = "--" + name.replace("_", "-"), OTHER[name]
    arguments = [flag] if value is True else [flag, str(value)]
    assert parsed("photos", *arguments) == TrainConfig(data="photos", **{name: value})
    for spelling in (name, name.replace("_", "-")):
        (tmp_path / "run.toml").write_text(toml({spelling: value}))
        assert parsed("photos", "--config", str(tmp_path / "run.toml")) == TrainConfig(
            data="photos", **{name: value}
        )


def test_the_command_line_wins_over_toml(parsed, tmp_path):
    (tmp_path / "run.toml").write_text(toml({"data": "a", "epochs": 3, "seed": 5}))
    config = parsed("b", "--config", str(tmp_path / "run.toml"), "--epochs", "4")
    assert (config.data, config.epochs, config.seed) == ("b", 4, 5)
    assert parsed("--config", str(tmp_path / "run.toml")).data == "a"


def test_every_option_has_help_and_its_flag():
    options = {option.name: option for option in train.params if isinstance(option, click.Option)}
    for name, item in FIELDS.items():
        assert item.metadata["help"]
        if name != "data":
            assert options[name].help.startswith(item.metadata["help"])


def test_the_flags_that_other_programs_rely_on():
    flags = {flag for option in train.params for flag in option.opts}
    assert {"--model", "--weights", "--freeze", "--epochs", "--seed", "--output", "--resume"} <= flags


def test_round_trip_through_json():
    for config in (TrainConfig(data="x"), TrainConfig(**OTHER)):
        assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "values",
    [
        {"epoch": 3},
        {"epochs": "3"},
        {"epochs": 3.0},
        {"epochs": True},
        {"width": "wide"},
        {"freeze": 1},
        {"data": None},
        {"train": {"epochs": 3}},
    ],
    ids=str,
)
def test_unknown_options_and_wrong_types_are_named(values):
    with pytest.raises(UsageError, match=next(iter(values))) as caught:
        TrainConfig.from_dict(values)
    assert "\n" not in str(caught.value)


IMPOSSIBLE = {
    "recipe": ["classic", ""],
    "optimizer": ["adam"],
    "schedule": ["step"],
    "augment": ["strong"],
    "flip": ["maybe"],
    "nesterov": ["maybe"],
    "clip_gradient": [-0.5, float("nan")],
    "batch_norm": ["off"],
    "precision": ["float16"],
    "epochs": [-1],
    "batch_size": [-1, 10**6],
    "image_size": [-1, 5000],
    "bits": [-1, 7, 17],
    "width": [0.0, -1.0, 100.0, float("nan")],
    "learning_rate": [-0.1, float("inf"), float("nan")],
    "momentum": [-0.1, 1.0],
    "weight_decay": [-0.5, -2.0, 11.0],
    "warmup": [-0.5, 1.5],
    "label_smoothing": [-0.1, 1.0],
    "aux_weight": [-0.1],
    "ema_decay": [-0.5, 1.0],
    "dropout": [-0.5, 1.0],
    "val_fraction": [-0.1, 1.0],
    "workers": [0, -1],
    "cache_gib": [-0.5, 1e6],
    "seed": [-1, 2**63],
    "accumulation": [0, -1],
    "mixup": [-0.1, float("nan")],
    "cutmix": [-0.1],
    "class_balance": ["off"],
    "batch_norm_across": ["none"],
    "layer_decay": [0.0, 1.5],
    "patience": [-1],
    "checkpoint_seconds": [-1.0],
    "checkpoint_steps": [-1],
    "keep_checkpoints": [0],
}


@pytest.mark.parametrize("name, value", [(n, v) for n, values in IMPOSSIBLE.items() for v in values])
def test_impossible_values_end_with_two_and_one_sentence(name, value, capsys):
    with pytest.raises(UsageError, match=name):
        TrainConfig(data="x", **{name: value})
    assert run(["train", "x", f"--{name.replace('_', '-')}", str(value)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    assert name.replace("_", "-") in output.err or name in output.err


@pytest.mark.parametrize("text", ["epochs = ", "epochs = 3\nepochs = 4", "[[["])
def test_toml_that_is_none(text, tmp_path):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(UsageError, match=r"run\.toml is not valid TOML"):
        read_config(tmp_path / "run.toml")


def test_toml_that_cannot_be_read(tmp_path):
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_config(tmp_path / "run.toml")
    with pytest.raises(UsageError, match="cannot read the configuration"):
        read_config(tmp_path / "nowhere.toml")
    with pytest.raises(UsageError, match="cannot read the configuration"):
        read_config(tmp_path)


def chosen(images: int = 1000, side: int = 300, start_side: int = 0, flip_safe: bool = True, **options):
    return resolve(TrainConfig(data="x", **options), images, side, start_side, flip_safe)


def automatic_values(config: TrainConfig) -> set[str]:
    stay = {
        "output",
        "model",
        "weights",
        "data_root",
        "cache_folder",
        "dropout",
        "device",
        "precision",
        "seed",
        *(item.name for item in dataclasses.fields(ReadOptions)),
    }
    if not config.weights or config.recipe != "finetune":
        stay.add("unfreeze")
    return {
        name
        for name in FIELDS.keys() - stay
        if getattr(config, name) in ("", "auto", -1.0)
        or (name in ("epochs", "batch_size") and not getattr(config, name))
    }


@pytest.mark.parametrize("recipe", ["modern", *RECIPES])
@pytest.mark.parametrize("weights", ["", "bundle"])
@pytest.mark.parametrize("side", [28, 64, 65, 500])
@pytest.mark.parametrize("images", [1, 300, 50_000, 2_000_000])
def test_nothing_is_left_to_choose(recipe, weights, side, images):
    start_side = 224 if weights else 0
    config = chosen(images, side, start_side, recipe=recipe, weights=weights)
    assert automatic_values(config) == set()
    assert config.learning_rate > 0
    assert config.image_size == start_side or (32 if side <= 64 else 224)
    # What has been chosen stays so when a run is resumed.
    assert resolve(config, images, side, start_side, True) == config


def test_kernels_are_for_cpus_that_can_have_them():
    def kernels(wish="auto", can=True, cuda=False, compiled="auto"):
        config = TrainConfig(data="x", kernels=wish, compile=compiled, epochs=10_000)
        return resolve(config, 50_000, 300, 0, True, cuda=cuda, kernels=can).kernels

    assert kernels() == "yes"
    assert kernels(can=False) == kernels("no") == kernels(compiled="yes") == "no"
    assert kernels(can=False, cuda=True) == "no"
    with pytest.raises(UsageError, match="drop --compile or --kernels"):
        kernels("yes", compiled="yes")


def test_what_is_asked_for_is_kept():
    values = {name: value for name, value in OTHER.items() if name not in ("data", "weights")}
    assert resolve(TrainConfig(data="x", **values), 1000, 300, 0, False) == TrainConfig(data="x", **values)


def test_the_papers_recipe():
    config = chosen(1_281_167, recipe="paper")
    assert (config.optimizer, config.momentum, config.schedule, config.aux_weight) == (
        "sgd",
        0.9,
        "paper",
        0.3,
    )
    assert (config.label_smoothing, config.augment, config.warmup) == (0.0, "paper", 0.0)
    assert config.ema_decay > 0


def test_defaults_follow_the_data():
    assert chosen(flip_safe=False).flip == "no"
    assert chosen(flip_safe=True).flip == "yes"
    assert chosen(side=28).augment == "shift"
    assert chosen(side=28, images=20_000).augment == "alternating"
    assert chosen(images=400).epochs > chosen(images=100_000).epochs
    small_set = chosen(weights="b", start_side=224, images=500)
    assert small_set.batch_norm == "frozen"
    assert chosen(weights="b", start_side=224, images=50_000).batch_norm == "train"
    assert chosen(images=500).batch_norm == "train"
    # Fine-tuning keeps the size of the weights' images, small or large, unless told otherwise.
    assert chosen(weights="b", start_side=32, side=500).image_size == 32
    assert chosen(weights="b", start_side=224, side=40).image_size == 224
    assert chosen(weights="b", start_side=224, image_size=128).image_size == 128


def test_every_augmentation_is_an_option():
    assert set(FIELDS["augment"].metadata["choices"]) == {"auto", *AUGMENTS}


def test_the_tests_own_run_is_valid(tmp_path):
    assert tiny_config(tmp_path, tmp_path).width == 0.05


@pytest.mark.parametrize(
    ("cuda", "images", "wanted"), [(True, 80_000, "yes"), (True, 50, "no"), (False, 80_000, "no")]
)
def test_long_runs_on_cuda_are_compiled(cuda, images, wanted):
    config = TrainConfig(data="x", epochs=20)
    assert resolve(config, images, 32, 0, True, cuda=cuda).compile == wanted
