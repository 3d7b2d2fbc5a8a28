"""Recipes as data: what each chooses for the options that are left alone, and where every number is from.

A value is a plain one, or says by itself what it depends on: `Views` (epochs by the number of images), `By`
(a fact about the run) or `Try` (alternatives that validation decides between).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from inception.errors import UsageError

RecipeName = Literal["modern", "paper", "bn", "rmsprop-v3", "fast", "general", "finetune"]
MANY_IMAGES = 10_000
"""From so many training images on, a set is `many`, below it `few`."""
SMALL_IMAGE = 64
"""Images up to this side in pixels are `small`; networks for them have the small stem."""
LAST_THIRD = "last third"
"""As `unfreeze`: the last third of the stages that have parameters."""


@dataclass(frozen=True)
class Views:
    """Epochs that show about `views` training images in all, at least `least` and at most `most`."""

    views: int
    least: int
    most: int

    def epochs(self, images: int) -> int:
        """For so many training images."""
        return min(max(round(self.views / max(images, 1)), self.least), self.most)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form."""
        return dict(vars(self))

    def __str__(self) -> str:
        return f"{self.views:,} images shown, {self.least} to {self.most}"


@dataclass(frozen=True)
class By:
    """One of `choices`, by the run's `fact`: `size` (small, large), `images` (few, many), `model` or
    `optimizer` (their names).

    `network` tells networks with batch normalisation (normalized) from others (plain). The choice named
    `other` stands for every one that is not named.
    """

    fact: Literal["size", "images", "model", "optimizer", "network"]
    choices: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form."""
        return {"by": self.fact, "choices": {name: _plain(value) for name, value in self.choices.items()}}

    def __str__(self) -> str:
        nested = {
            name: f"({value})" if isinstance(value, By) else value for name, value in self.choices.items()
        }
        return "; ".join(f"{name}: {value}" for name, value in nested.items())


@dataclass(frozen=True)
class Try:
    """Alternatives that validation decides between; the first where there is no val split."""

    options: tuple[Any, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form."""
        return {"try": list(self.options)}

    def __str__(self) -> str:
        return " or ".join(map(str, self.options)) + ", by validation"


@dataclass(frozen=True)
class Value:
    """What a recipe gives an option, and where that is from."""

    value: Any
    source: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form."""
        return {"value": _plain(self.value), "source": self.source}


@dataclass(frozen=True)
class Recipe:
    """A named set of choices.

    Attributes:
        name: as in `--recipe`.
        version: raised with every change of a value.
        purpose: what it is for, in one line.
        source: the paper, or this project.
        values: option -> value and source.
    """

    name: RecipeName
    version: int
    purpose: str
    source: str
    values: Mapping[str, Value]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form."""
        return {**vars(self), "values": {name: value.to_dict() for name, value in self.values.items()}}

    def resolved(self, images: int, facts: Mapping[str, str]) -> dict[str, Any]:
        """Every value for a run of so many training images with the given facts (all but `model` and
        `optimizer`, which the recipe may choose itself, must be there).
        """
        known = {**facts, "images": "many" if images >= MANY_IMAGES else "few"}
        for fact in ("model", "optimizer"):
            if fact not in known and fact in self.values:
                known[fact] = _settled(self.values[fact].value, images, known)
        return {name: _settled(value.value, images, known) for name, value in self.values.items()}


def _settled(value: Any, images: int, facts: Mapping[str, str]) -> Any:
    if isinstance(value, By):
        fact = facts[value.fact]
        chosen = value.choices[fact] if fact in value.choices else value.choices["other"]
        return _settled(chosen, images, facts)
    if isinstance(value, Views):
        return value.epochs(images)
    return value.options[0] if isinstance(value, Try) else value


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, By | Views | Try) else value


_OURS = "this project's choice"
_MEASURED = "measured: docs/decisions.md"
_SCALED = "scaled by this project to sets of any size"
_V1 = "Szegedy et al. 2015, section 6"
_BN = "Ioffe and Szegedy 2015, section 4.2"
_V3 = "Szegedy et al. 2016, section 8"
_SLIM = "TF-slim's training code for Inception"
_AIRBENCH = "Jordan 2024, 94% on CIFAR-10"
_CAFFE = "Caffe's solver for GoogLeNet"

PAPER = Recipe(
    "paper",
    1,
    "GoogLeNet as in its paper",
    "Szegedy et al. 2015, Going Deeper with Convolutions, section 6",
    {
        "epochs": Value(Views(384_000, 5, 60), _SCALED),
        "batch_size": Value(32, _CAFFE),
        "optimizer": Value("sgd", f"{_V1}: asynchronous SGD (here synchronous)"),
        "nesterov": Value("no", f"{_V1}: momentum 0.9"),
        "learning_rate": Value(0.01, _CAFFE),
        "weight_decay": Value(2e-4, _CAFFE),
        "schedule": Value("paper", f"{_V1}: minus 4% every 8 epochs"),
        "warmup": Value(0.0, f"{_V1}: none"),
        "label_smoothing": Value(0.0, f"{_V1}: none"),
        "clip_gradient": Value(0.0, f"{_V1}: none"),
        "ema_decay": Value(0.999, f"{_V1}: Polyak averaging; the decay is {_OURS}"),
        "augment": Value("paper", f"{_V1}: 8 to 100% of the area, aspect 3/4 to 4/3, photometric"),
    },
)
BN = Recipe(
    "bn",
    1,
    "batch-normalised networks as in that paper (its BN-x30)",
    "Ioffe and Szegedy 2015, Batch Normalization, section 4.2",
    {
        "epochs": Value(Views(384_000, 5, 60), _SCALED),
        "batch_size": Value(32, f"{_BN}: 32"),
        "optimizer": Value("sgd", f"{_BN}: SGD with momentum"),
        "nesterov": Value("no", f"{_BN}: momentum as in Sutskever et al. 2013; plain here, as in paper"),
        "learning_rate": Value(0.045, f"{_BN}.2: BN-x30, 30 times Inception's 0.0015"),
        "weight_decay": Value(4e-5, f"{_BN}.1: a fifth of Inception's, which is taken from {_CAFFE}"),
        "schedule": Value("bn", f"{_BN}.1: falls 6 times faster, so minus 4% every 8/6 epochs"),
        "warmup": Value(0.0, f"{_BN}: none"),
        "label_smoothing": Value(0.0, f"{_BN}: none"),
        "clip_gradient": Value(0.0, f"{_BN}: none"),
        "ema_decay": Value(0.999, f"{_BN} is silent; as in paper"),
        "dropout": Value(0.0, f"{_BN}.1: dropout removed"),
        "augment": Value("crop", f"{_BN}.1: photometric distortions reduced; the cut is {_OURS}"),
    },
)
RMSPROP_V3 = Recipe(
    "rmsprop-v3",
    1,
    "Inception-v3 as in its paper",
    "Szegedy et al. 2016, Rethinking the Inception Architecture for Computer Vision, section 8",
    {
        "epochs": Value(Views(384_000, 5, 100), f"{_V3}: 100 epochs of ImageNet; {_SCALED}"),
        "batch_size": Value(32, f"{_V3}: 32 (on each of 50 replicas)"),
        "optimizer": Value("rmsprop", f"{_V3}: RMSProp with decay 0.9 and epsilon 1.0"),
        "learning_rate": Value(0.045, f"{_V3}: 0.045"),
        "momentum": Value(0.9, f"{_SLIM}; the paper is silent for RMSProp"),
        "weight_decay": Value(4e-5, f"{_SLIM}; the paper is silent"),
        "schedule": Value("v3", f"{_V3}: times 0.94 every two epochs"),
        "warmup": Value(0.0, f"{_V3}: none"),
        "label_smoothing": Value(0.1, "Szegedy et al. 2016, section 7: 0.1"),
        "clip_gradient": Value(2.0, f"{_V3}: threshold 2.0"),
        "ema_decay": Value(0.9999, f"{_V3}: running average; the decay is {_SLIM}'s"),
        "augment": Value("paper", f"{_V3} is silent; as in the paper of GoogLeNet"),
    },
)
_SMALL_MODEL = "inception_small"
FAST = Recipe(
    "fast",
    2,
    "small images from scratch, in little time",
    "this project; Muon: Jordan et al. 2024",
    {
        "model": Value(By("images", {"few": "googlenet_bn", "many": _SMALL_MODEL}), _MEASURED),
        "epochs": Value(
            By(
                "images",
                {
                    "few": Views(96_000, 5, 60),
                    "many": By(
                        "model", {_SMALL_MODEL: Views(1_000_000, 5, 60), "other": Views(384_000, 5, 60)}
                    ),
                },
            ),
            _OURS,
        ),
        "batch_size": Value(
            By("images", {"few": 32, "many": By("model", {_SMALL_MODEL: 256, "other": 128})}), _OURS
        ),
        "optimizer": Value(By("network", {"normalized": "muon", "plain": "sgd"}), _MEASURED),
        "nesterov": Value("yes", _OURS),
        "learning_rate": Value(
            By(
                "optimizer",
                {
                    "muon": By("model", {_SMALL_MODEL: 0.1, "other": 0.05}),
                    "sgd": By("images", {"few": 0.05, "many": 0.2}),
                    "adamw": 1e-3,
                    "rmsprop": 0.045,
                },
            ),
            _MEASURED,
        ),
        "weight_decay": Value(By("optimizer", {"adamw": 0.05, "other": 5e-4}), _OURS),
        "schedule": Value(
            By("model", {_SMALL_MODEL: "linear", "other": "cosine"}), f"{_OURS}; linear: {_AIRBENCH}"
        ),
        "warmup": Value(By("optimizer", {"muon": 0.05, "other": 0.15}), _OURS),
        "label_smoothing": Value(
            By("model", {_SMALL_MODEL: 0.2, "other": 0.1}),
            f"Szegedy et al. 2016, section 7; 0.2: {_AIRBENCH}",
        ),
        "clip_gradient": Value(0.0, _OURS),
        "ema_decay": Value(0.99, _OURS),
        "dropout": Value(By("optimizer", {"muon": 0.0, "other": -1.0}), f"{_MEASURED}; -1 is the network's"),
        "augment": Value(
            By(
                "images",
                {"few": "shift", "many": By("model", {_SMALL_MODEL: "alternating", "other": "cutout"})},
            ),
            f"{_MEASURED}; alternating: {_AIRBENCH}",
        ),
        "whiten": Value(By("model", {_SMALL_MODEL: "yes", "other": "no"}), _AIRBENCH),
    },
)
GENERAL = Recipe(
    "general",
    1,
    "larger images from scratch",
    "this project",
    {
        "epochs": Value(Views(192_000, 5, 60), _OURS),
        "batch_size": Value(32, _OURS),
        "optimizer": Value("sgd", _OURS),
        "nesterov": Value("yes", _OURS),
        "learning_rate": Value(
            By("optimizer", {"sgd": 0.05, "muon": 0.05, "adamw": 1e-3, "rmsprop": 0.045}), _OURS
        ),
        "weight_decay": Value(By("optimizer", {"adamw": 0.05, "other": 5e-4}), _OURS),
        "schedule": Value("cosine", _OURS),
        "warmup": Value(By("optimizer", {"muon": 0.05, "other": 0.15}), _OURS),
        "label_smoothing": Value(0.1, "Szegedy et al. 2016, section 7"),
        "clip_gradient": Value(0.0, _OURS),
        "ema_decay": Value(0.99, _OURS),
        "dropout": Value(By("optimizer", {"muon": 0.0, "other": -1.0}), f"{_OURS}; -1 is the network's"),
        "augment": Value("crop", _OURS),
    },
)
FINETUNE = Recipe(
    "finetune",
    1,
    "starting from weights",
    "this project",
    {
        "epochs": Value(Views(10_000, 3, 20), _OURS),
        "batch_size": Value(32, _OURS),
        "optimizer": Value("adamw", _OURS),
        "nesterov": Value("yes", _OURS),
        "learning_rate": Value(
            By(
                "optimizer",
                {"adamw": Try((1e-4, 3e-4)), "sgd": Try((3e-3, 1e-2)), "rmsprop": 3e-3, "muon": 3e-3},
            ),
            _OURS,
        ),
        "weight_decay": Value(By("optimizer", {"adamw": 0.01, "other": 5e-4}), _OURS),
        "unfreeze": Value(Try(("all", LAST_THIRD)), _OURS),
        "schedule": Value("cosine", _OURS),
        "warmup": Value(0.1, _OURS),
        "label_smoothing": Value(0.1, "Szegedy et al. 2016, section 7"),
        "clip_gradient": Value(0.0, _OURS),
        "ema_decay": Value(0.99, _OURS),
        "augment": Value(By("size", {"small": "shift", "large": "crop"}), _OURS),
    },
)
RECIPES = {recipe.name: recipe for recipe in (PAPER, BN, RMSPROP_V3, FAST, GENERAL, FINETUNE)}
MODERN = "finetune with --weights, fast for small images, general for larger ones"


def recipe_named(name: str) -> Recipe:
    """The recipe of that name. Raises UsageError."""
    if name not in RECIPES:
        raise UsageError(
            f"there is no recipe '{name:.60}'; the recipes are {', '.join(RECIPES)} "
            f"(modern stands for {MODERN})"
        )
    return RECIPES[name]


def label_of(name: str) -> str:
    """Name and version as runs record them: `fast 1`."""
    return f"{name} {RECIPES[name].version}" if name in RECIPES else name


def chosen_recipe(name: str, tuned: bool, small: bool) -> Recipe:
    """The recipe of that name, and for `modern` the one that fits: started from weights, or small images."""
    if name == "modern":
        name = "finetune" if tuned else "fast" if small else "general"
    return recipe_named(name)


def alternatives(recipe: Recipe, option: str, facts: Mapping[str, str]) -> tuple[Any, ...]:
    """The values of an option that validation may decide between; none where the recipe fixes it."""
    value = recipe.values[option].value if option in recipe.values else None
    while isinstance(value, By):
        value = value.choices.get(facts[value.fact], value.choices.get("other"))
    return value.options if isinstance(value, Try) else ()
