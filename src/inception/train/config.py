"""All that can be chosen about a training run, in one frozen value, and what `auto` means."""

import dataclasses
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from inception.data.augment import AUGMENTS
from inception.data.options import ReadOptions
from inception.errors import UsageError
from inception.files import read_at_most
from inception.train.recipes import RECIPES, SMALL_IMAGE, RecipeName, chosen_recipe
from inception.train.schedule import ScheduleName

DEFAULT_NETWORK = "googlenet_bn"
CONFIG_LIMIT_BYTES = 1 << 20
COMPILED_STEPS = 5000
"""Compiling takes minutes, which shorter runs do not earn back."""

BATCH_NORM_IMAGES = 10_000
"""Fine-tuning on fewer images keeps the pretrained batch-norm statistics: theirs would be too noisy."""


def _option(default: Any, text: str, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices})


def _of_data(name: str) -> Any:
    """The field of `ReadOptions` with this name."""
    described = ReadOptions.__dataclass_fields__[name]
    return field(default=described.default, metadata=described.metadata)


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Where a default is 0, "" or `auto`, `resolve` chooses by the data set's size."""

    data: str = _option("", "folder, archive, CSV or named set to train on")
    data_root: str = _option("", "where named sets are kept; default ~/.cache/inception/data")
    classes: str = _of_data("classes")
    label_from: str = _of_data("label_from")
    path_column: str = _of_data("path_column")
    label_column: str = _of_data("label_column")
    split_column: str = _of_data("split_column")
    label_separator: str = _of_data("label_separator")
    val_fold: str = _of_data("val_fold")
    test_fold: str = _of_data("test_fold")
    encoding: str = _of_data("encoding")
    allow_left_out: bool = _of_data("allow_left_out")
    root: str = _of_data("root")
    output: str = _option("", "run folder; default runs/<data>-<model>")
    model: str = _option("", "network; default by the recipe, or the weights' own")
    weights: str = _option("", "bundle to start from")
    recipe: RecipeName = _option(
        "modern", "defaults for everything below; modern chooses one", ("modern", *RECIPES)
    )
    epochs: int = _option(0, "passes over the training images; 0 chooses by the data set's size")
    batch_size: int = _option(0, "images a step, over all processes; 0 chooses")
    accumulation: int = _option(1, "parts in which a step's images are computed, to save memory")
    checkpoint_gradients: bool = _option(
        False, "compute each stage again for its gradient instead of keeping its maps, to save memory"
    )
    image_size: int = _option(0, "side in pixels; 0 takes the weights', 32 for small images, else 224")
    bits: int = _option(0, "depth of the values of grey images stored in 16 bits, such as 12; 0 by the file")
    width: float = _option(1.0, "multiplier of the network's channels")
    optimizer: Literal["auto", "sgd", "adamw", "rmsprop", "muon"] = _option(
        "auto", "optimiser; muon only with batch norm", ("auto", "sgd", "adamw", "rmsprop", "muon")
    )
    learning_rate: float = _option(0.0, "peak learning rate; 0 chooses")
    find_learning_rate: bool = _option(False, "choose the peak rate by a range test before the first epoch")
    momentum: float = _option(0.9, "momentum of SGD and RMSProp")
    nesterov: Literal["auto", "yes", "no"] = _option(
        "auto", "Nesterov's form of SGD's momentum", ("auto", "yes", "no")
    )
    weight_decay: float = _option(-1.0, "L2 penalty on weights, not on biases or norms; -1 chooses")
    clip_gradient: float = _option(-1.0, "largest norm of a step's whole gradient; 0 for none, -1 chooses")
    schedule: ScheduleName = _option(
        "auto", "learning rate over time", ("auto", "cosine", "linear", "paper", "bn", "v3", "constant")
    )
    warmup: float = _option(-1.0, "share of the run in which the rate rises linearly; -1 chooses")
    label_smoothing: float = _option(-1.0, "share of the target spread over all classes; -1 chooses")
    aux_weight: float = _option(0.3, "weight of each auxiliary head's loss")
    ema_decay: float = _option(-1.0, "decay of the averaged weights, 0 for none; -1 chooses")
    dropout: float = _option(-1.0, "share dropped before the classifier; -1 keeps the network's")
    augment: Literal["auto", "none", "shift", "cutout", "alternating", "crop", "paper"] = _option(
        "auto", "training views", ("auto", *AUGMENTS)
    )
    whiten: Literal["auto", "yes", "no"] = _option(
        "auto",
        "first convolution: the principal components of the training images' patches, kept fixed",
        ("auto", "yes", "no"),
    )
    mixup: float = _option(0.0, "strength of mixing two images (about 0.2); 0 for none")
    cutmix: float = _option(0.0, "strength of cutting one image into another (about 1.0); 0 for none")
    class_balance: Literal["none", "weights", "sampling"] = _option(
        "none", "rare classes: weigh or draw them more", ("none", "weights", "sampling")
    )
    flip: Literal["auto", "yes", "no"] = _option("auto", "mirror training views", ("auto", "yes", "no"))
    freeze: bool = _option(False, "train only the classifier, on features computed once")
    unfreeze: str = _option("", "with weights: first stage that is trained, or all; default by validation")
    batch_norm: Literal["auto", "train", "frozen"] = _option(
        "auto", "batch-norm statistics when starting from weights", ("auto", "train", "frozen")
    )
    batch_norm_across: Literal["all", "each"] = _option(
        "all",
        "several processes: batch-norm statistics of all their images, or each its own",
        ("all", "each"),
    )
    layer_decay: float = _option(1.0, "learning rate of each stage relative to the one above it")
    patience: int = _option(0, "epochs without a better validation accuracy before stopping; 0 never stops")
    skip_nonfinite: bool = _option(False, "leave out steps whose loss or gradient is not finite")
    val_fraction: float = _option(0.1, "share of the training images set aside where there is no val split")
    precision: Literal["auto", "float32", "bfloat16"] = _option(
        "auto", "arithmetic of the network", ("auto", "float32", "bfloat16")
    )
    device: str = _option("auto", "auto, cpu, cuda, cuda:1, mps")
    compile: Literal["auto", "yes", "no"] = _option(
        "auto", "torch.compile the network; auto: on CUDA, in runs long enough", ("auto", "yes", "no")
    )
    kernels: Literal["auto", "yes", "no"] = _option(
        "auto",
        "convolutions, batch norm and max pools by kernels compiled here; auto: on CPUs where gcc is found",
        ("auto", "yes", "no"),
    )
    workers: int = _option(2, "decoding threads")
    cache_gib: float = _option(2.0, "GiB of memory for decoded images, of train and of val each")
    cache_folder: str = _option(
        "",
        "where decoded photographs are kept during the run that this memory has no room for; default nowhere",
    )
    seed: int = _option(0, "seed of weights, order, views and dropout")
    strict: bool = _option(False, "stop at the first unreadable image instead of skipping it")
    checkpoint_seconds: float = _option(60.0, "time between checkpoints")
    checkpoint_steps: int = _option(0, "steps between checkpoints, besides; 0 for time alone")
    keep_checkpoints: int = _option(2, "newest checkpoints kept, besides the best epoch's")
    resume: bool = _option(False, "continue whatever is in the run folder")

    def __post_init__(self) -> None:
        _check(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON- and TOML-safe form."""
        return dataclasses.asdict(self)

    def reading(self) -> ReadOptions:
        """How the data is read."""
        return ReadOptions(**{item.name: getattr(self, item.name) for item in fields(ReadOptions)})

    def given(self) -> dict[str, Any]:
        """The options that are not left at their defaults."""
        return {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if getattr(self, item.name) != item.default
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Inverse of `to_dict`; UsageError names an unknown option or a value of the wrong type."""
        known = {item.name: item for item in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise UsageError(
                    f"there is no training option '{name:.60}'; the options are {', '.join(known)}"
                )
            wanted = type(known[name].default)
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise UsageError(
                    f"training option '{name}' must be of type {wanted.__name__}, not {value!r:.60}"
                )
        return cls(**values)


def read_config(path: Path) -> dict[str, Any]:
    """The options in a TOML file, names spelled with `-` or `_`."""
    try:
        values = tomllib.loads(read_at_most(path, CONFIG_LIMIT_BYTES).decode("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror or error}") from error
    except ValueError as error:  # TOML's and UTF-8's errors are such too
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    return {name.replace("-", "_"): value for name, value in values.items()}


def _check(config: TrainConfig) -> None:
    for item in fields(config):
        choices, value = item.metadata["choices"], getattr(config, item.name)
        if choices and value not in (*choices, item.default):
            raise UsageError(f"{item.name} must be one of {', '.join(choices)}, not {value!r:.60}")
    if config.compile == config.kernels == "yes":
        raise UsageError("torch.compile cannot see into compiled kernels: drop --compile or --kernels")
    limits = {
        "epochs": (0, 100_000),
        "batch_size": (0, 65_536),
        "image_size": (0, 4096),
        "width": (0.01, 16.0),
        "learning_rate": (0.0, 1000.0),
        "momentum": (0.0, 0.9999),
        "weight_decay": (0.0, 10.0),
        "clip_gradient": (0.0, 1e6),
        "warmup": (0.0, 1.0),
        "label_smoothing": (0.0, 0.999),
        "aux_weight": (0.0, 10.0),
        "ema_decay": (0.0, 0.999999),
        "dropout": (0.0, 0.99),
        "val_fraction": (0.0, 0.9),
        "bits": (8, 16),
        "workers": (1, 256),
        "cache_gib": (0.0, 65_536.0),
        "accumulation": (1, 65_536),
        "mixup": (0.0, 100.0),
        "cutmix": (0.0, 100.0),
        "layer_decay": (0.01, 1.0),
        "patience": (0, 100_000),
        "checkpoint_seconds": (0.0, 86_400.0),
        "checkpoint_steps": (0, 10**9),
        "keep_checkpoints": (1, 10_000),
        "seed": (0, 2**63 - 1),
    }
    automatic = {item.name: item.default for item in fields(config)}
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if not low <= value <= high and value != automatic[name]:
            raise UsageError(f"{name} must be between {low} and {high}, not {value}")


def resolve(
    config: TrainConfig,
    images: int,
    side: int,
    start_side: int,
    flip_safe: bool,
    normalized: bool = True,
    cuda: bool = False,
    kernels: bool = False,
) -> TrainConfig:
    """Replace every automatic choice by a value; `recipe` becomes the name of the recipe that chose.

    Args:
        config: what the user asked.
        images: number of training images.
        side: pixels of the typical image's shorter side.
        start_side: side of the images the starting weights were made for; 0 without weights.
        flip_safe: whether a mirrored image keeps its class.
        normalized: whether the network has batch normalisation.
        cuda: whether the run is on a CUDA device.
        kernels: whether it is on a CPU for which the training kernels can be compiled.
    """
    tuned = bool(config.weights)
    small = (config.image_size or start_side or side) <= SMALL_IMAGE
    recipe = chosen_recipe(config.recipe, tuned, small)
    chosen = recipe.resolved(images, facts_of(config, small, normalized))
    if not tuned:
        chosen.pop("unfreeze", None)
    chosen |= {"flip": "yes" if flip_safe else "no"}
    chosen |= {"batch_norm": "frozen" if tuned and images < BATCH_NORM_IMAGES else "train"}
    chosen |= {"image_size": start_side or (32 if small else 224)}
    chosen = {"model": DEFAULT_NETWORK, "nesterov": "no", "whiten": "no"} | chosen
    if tuned:
        del chosen["model"]
    automatic = {item.name: item.default for item in fields(config)}
    for name, value in chosen.items():
        if getattr(config, name) == automatic[name]:
            config = replace(config, **{name: value})
    if config.compile == "auto":
        steps = config.epochs * (images // config.batch_size)
        config = replace(config, compile="yes" if cuda and steps >= COMPILED_STEPS else "no")
    if config.kernels == "auto":
        config = replace(config, kernels="yes" if kernels and config.compile == "no" else "no")
    return replace(config, recipe=recipe.name)


_STEPS_ALONE = (
    *("epochs", "accumulation", "checkpoint_gradients", "optimizer", "learning_rate", "momentum", "nesterov"),
    *("weight_decay", "clip_gradient", "schedule", "warmup", "label_smoothing", "aux_weight", "ema_decay"),
    *("dropout", "augment", "unfreeze", "layer_decay", "patience", "skip_nonfinite"),
)
"""Options that say how steps are made: with `freeze` there are none."""


def unused_by_probe(asked: TrainConfig) -> tuple[str, ...]:
    """Options that were given, as the command line spells them, and of which a linear probe makes no use."""
    given = asked.given()
    return tuple(f"--{name.replace('_', '-')}" for name in _STEPS_ALONE if name in given)


def facts_of(config: TrainConfig, small: bool, normalized: bool) -> dict[str, str]:
    """What a recipe's choices may depend on, besides the number of images."""
    facts = {"size": "small" if small else "large", "network": "normalized" if normalized else "plain"}
    if config.model or config.weights:
        facts["model"] = config.model
    return facts if config.optimizer == "auto" else {**facts, "optimizer": config.optimizer}
