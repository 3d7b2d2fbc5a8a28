"""Recipes: the papers' numbers, what `modern` picks, how they are printed and recorded."""

import json
from typing import get_args

import pytest
from shapes import tiny_config, write_shapes

from inception.cli.main import run
from inception.errors import UsageError
from inception.train.config import TrainConfig, resolve
from inception.train.recipes import RECIPES, RecipeName, Views, chosen_recipe, label_of, recipe_named
from inception.train.run import train_bundle
from inception.weights.bundle import load_bundle


def chosen(images: int = 1000, side: int = 300, normalized: bool = True, **options) -> TrainConfig:
    start = 224 if options.get("weights") else 0
    return resolve(TrainConfig(data="x", **options), images, side, start, True, normalized)


def test_every_name_has_a_recipe_and_a_version():
    assert set(get_args(RecipeName)) == {"modern", *RECIPES}
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.version >= 1
        assert all(value.source for value in recipe.values.values())
        assert recipe.values.keys() <= TrainConfig.__dataclass_fields__.keys()
        assert label_of(name) == f"{name} {recipe.version}"


def test_the_numbers_of_the_papers():
    paper = chosen(recipe="paper")
    assert (paper.optimizer, paper.momentum, paper.nesterov, paper.schedule) == ("sgd", 0.9, "no", "paper")
    bn = chosen(recipe="bn")
    assert (bn.learning_rate, bn.batch_size, bn.dropout, bn.schedule) == (0.045, 32, 0.0, "bn")
    assert bn.weight_decay == pytest.approx(paper.weight_decay / 5)
    v3 = chosen(recipe="rmsprop-v3")
    assert (v3.optimizer, v3.learning_rate, v3.clip_gradient) == ("rmsprop", 0.045, 2.0)
    assert (v3.label_smoothing, v3.schedule, v3.batch_size) == (0.1, "v3", 32)
    assert v3.ema_decay > 0.99


def test_modern_picks_by_the_data():
    assert chosen(side=300).recipe == "general"
    assert chosen(side=32).recipe == "fast"
    assert chosen(side=32, weights="b").recipe == "finetune"
    assert chosen(side=32).optimizer == "muon"
    assert chosen(side=32, normalized=False).optimizer == "sgd"
    assert chosen(side=300).model == chosen(side=32).model == "googlenet_bn"
    many = chosen(side=32, images=50_000)
    assert (many.model, many.batch_size, many.whiten, many.epochs) == ("inception_small", 256, "yes", 20)
    assert chosen(side=32, images=50_000, model="googlenet").model == "googlenet"
    assert chosen(side=32, images=50_000, whiten="no").whiten == "no"
    assert chosen(side=32, weights="b").model == ""
    # Other networks keep what was measured for them, and so do weights whatever their network.
    for options in ({"model": "googlenet_bn"}, {"weights": "b", "recipe": "fast"}):
        other = chosen(side=32, images=50_000, **options)
        assert (other.batch_size, other.learning_rate, other.augment) == (128, 0.05, "cutout")
        assert (other.schedule, other.label_smoothing, other.whiten, other.epochs) == ("cosine", 0.1, "no", 8)
    assert chosen(side=32, images=50_000, optimizer="sgd").learning_rate == 0.2
    assert chosen(side=32, images=500, optimizer="sgd").learning_rate == 0.05
    assert chosen(side=300, optimizer="adamw").weight_decay == 0.05


def test_epochs_follow_the_number_of_images():
    views = Views(10_000, 3, 20)
    assert [views.epochs(images) for images in (1, 500, 1000, 2500, 10**6)] == [20, 20, 10, 4, 3]


def test_an_unknown_recipe_is_named():
    with pytest.raises(UsageError, match=r"no recipe 'classic'.*rmsprop-v3"):
        recipe_named("classic")
    with pytest.raises(UsageError, match="classic"):
        chosen_recipe("classic", tuned=False, small=True)


def test_they_are_printed(capsys):
    assert run(["recipes"]) == 0
    out, err = capsys.readouterr()
    assert all(name in out for name in RECIPES)
    assert "modern, the default" in err
    assert run(["recipes", "rmsprop-v3"]) == 0
    out = capsys.readouterr().out
    assert "0.045" in out
    assert "Szegedy et al. 2016, section 8" in out
    assert run(["recipes", "--json"]) == 0
    assert [item["name"] for item in json.loads(capsys.readouterr().out)] == list(RECIPES)
    assert run(["recipes", "fast", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["values"]["batch_size"]["value"] == {
        "by": "images",
        "choices": {"few": 32, "many": {"by": "model", "choices": {"inception_small": 256, "other": 128}}},
    }
    assert run(["recipes", "classic"]) == 2
    assert run(["recipes", "modern"]) == 2


@pytest.mark.parametrize("name", ["bn", "rmsprop-v3", "general"])
def test_each_trains_and_is_recorded(name, tmp_path):
    data = write_shapes(tmp_path / "data", {"train": 6, "val": 2})
    result = train_bundle(tiny_config(data, tmp_path / "run", recipe=name, epochs=2))
    provenance = load_bundle(result.bundle).provenance
    assert provenance["recipe"]["recipe"] == name
    assert provenance["recipe_version"] == label_of(name)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["recipe"] for row in rows] == [label_of(name)] * 2
