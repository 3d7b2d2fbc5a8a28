"""A hyper-parameter sweep: many runs in one folder, chosen by Optuna, judged by val alone.

study.db       Optuna's record: a sweep that was stopped, or killed, goes on from it
trials/000/    the run folder of each trial; of all but the best only metrics and curves are kept
trials.json    what each trial was given and reached
sweep.png      the same as a picture
best.toml      the best trial's options, for `inception train --config`
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inception.errors import TrainingError, UsageError
from inception.files import atomic_write_text, held
from inception.train.config import TrainConfig
from inception.train.interrupt import Interrupted
from inception.train.log import Observer, Row
from inception.train.prepare import plan
from inception.train.run import train_bundle
from inception.train.trials import TrialResult, draw_sweep

if TYPE_CHECKING:
    import optuna

STUDY_FILE, TRIALS_FILE, PICTURE_FILE, BEST_FILE = "study.db", "trials.json", "sweep.png", "best.toml"
EXTRA = "pip install 'inception[sweep]'"
RANDOM_TRIALS = 5
"""So many trials are drawn at random before earlier ones decide where to look."""


@dataclass(frozen=True)
class Range:
    """Values of one option: `low` to `high`; with `relative` as factors of the recipe's own value."""

    low: float
    high: float
    relative: bool = False


SPACE: dict[str, Range | tuple[str, ...]] = {
    "learning_rate": Range(0.1, 10.0, relative=True),
    "weight_decay": Range(0.1, 10.0, relative=True),
    "label_smoothing": Range(0.0, 0.2),
    "dropout": Range(0.0, 0.6),
    "mixup": Range(0.0, 0.4),
    "cutmix": Range(0.0, 1.0),
    "layer_decay": Range(0.5, 1.0),
    "aux_weight": Range(0.0, 0.5),
    "augment": ("none", "shift", "cutout", "alternating", "crop", "paper"),
    "optimizer": ("sgd", "adamw", "rmsprop"),
}
USUAL = ("learning_rate", "weight_decay", "label_smoothing")


@dataclass(frozen=True)
class SweepResult:
    """What a sweep left: every trial, the best one, and the folder."""

    folder: Path
    trials: tuple[TrialResult, ...]
    best: TrialResult


class _PrunedError(Exception):
    """The trial is worse than the others were by then."""


class _Watching:
    """Passes on what the run says, reports val after each epoch, and stops a trial that will not win."""

    def __init__(self, trial: "optuna.Trial", observer: Observer) -> None:
        self.trial, self.observer = trial, observer
        self.message, self.downloading = observer.message, observer.downloading
        self.epoch_started, self.batch_done = observer.epoch_started, observer.batch_done

    def epoch_done(self, row: Row) -> None:
        """See `Observer`; ends the run by raising where Optuna's pruner says so."""
        self.observer.epoch_done(row)
        score = row.get("val_top1", row.get("val_map"))
        if score is None:
            return
        self.trial.report(score, row["epoch"])
        if self.trial.should_prune():
            raise _PrunedError


def sweep(config: TrainConfig, trials: int, over: Sequence[str], observer: Observer) -> SweepResult:
    """Train until `config.output` holds `trials` finished trials over the options named in `over`.

    The first trial is the recipe's own. A sweep that is there already goes on; its options must be the same.
    The test split is never read. Raises UsageError for a request that makes no sense, or without Optuna.
    """
    folder = Path(config.output or f"runs/{Path(config.data).stem}-sweep")
    _check(config, over)
    _optuna()
    planned = plan(replace(config, output=str(folder)), observer)
    if not planned.dataset.split("val"):
        raise UsageError("a sweep needs a val split: set one aside with --val-fraction")
    with _held(folder):
        return _fill(folder, config, planned.config, trials, over, observer)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep other processes out of the sweep's folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    with held(folder, "another process is sweeping in"):
        yield


def _fill(
    folder: Path,
    config: TrainConfig,
    base: TrainConfig,
    trials: int,
    over: Sequence[str],
    observer: Observer,
) -> SweepResult:
    study = _open_study(folder, config, over, base.epochs)
    _requeue_unfinished(study, folder)
    if not study.trials:
        study.enqueue_trial(_own_values(base, over))
    while len(_finished(study)) < trials:
        trial = study.ask()
        options = _drawn(trial, over, config, base, observer)
        trial.set_user_attr("options", options)
        observer.message(f"trial {trial.number}: {_shown(options)}")
        tried = _trial_config(config, base, options, _place(folder, trial.number))
        try:
            _run_trial(study, trial, tried, observer)
        except Interrupted as error:
            raise Interrupted(f"stopped in trial {trial.number}; the same command goes on") from error
        _write(study, folder, config, base)
    result = _write(study, folder, config, base)
    if result is None:
        raise TrainingError(f"no trial in {folder} could be finished: give other options or more --trials")
    return result


def _check(config: TrainConfig, over: Sequence[str]) -> None:
    unknown = [name for name in over if name not in SPACE]
    if unknown or not over:
        raise UsageError(f"--over takes {', '.join(SPACE)}, not {', '.join(unknown) or 'nothing'}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("a sweep runs in one process: start it without torchrun")
    for name in ("resume", "freeze", "find_learning_rate"):
        if getattr(config, name):
            raise UsageError(f"--{name.replace('_', '-')} has no place in a sweep: drop it")


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UsageError(f"a sweep needs Optuna; install it with: {EXTRA}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open_study(folder: Path, config: TrainConfig, over: Sequence[str], epochs: int) -> "optuna.Study":
    library = _optuna()
    from sqlalchemy import URL  # Optuna brings it

    study: optuna.Study = library.create_study(
        study_name="inception",
        storage=URL.create("sqlite", database=str(folder / STUDY_FILE)).render_as_string(),
        direction="maximize",
        load_if_exists=True,
        pruner=library.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 4)),
    )
    # Another seed after every restart: the same one would draw the same trials again.
    study.sampler = library.samplers.TPESampler(
        seed=(config.seed + len(study.trials)) % 2**32, n_startup_trials=RANDOM_TRIALS
    )
    asked = {"config": _said(config), "over": sorted(over)}
    before = study.user_attrs.get("asked", asked)
    if before != asked:
        raise UsageError(
            f"{folder} holds a sweep with other options ({_shown(before['config'])}; over "
            f"{', '.join(before['over'])}): give the same ones, or choose another --output"
        )
    study.set_user_attr("asked", asked)
    return study


def _said(config: TrainConfig) -> dict[str, Any]:
    """The options that are not left alone; where results go is no matter."""
    stay = ("output", "resume", "workers", "device")
    return {name: value for name, value in config.given().items() if name not in stay}


def _requeue_unfinished(study: "optuna.Study", folder: Path) -> None:
    """A trial that was interrupted or killed is tried again from its start, under another number."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        shutil.rmtree(_place(folder, trial.number), ignore_errors=True)
        study.enqueue_trial(trial.params)


def _own_values(base: TrainConfig, over: Sequence[str]) -> dict[str, Any]:
    """The recipe's own values as the sweep counts them; one that cannot be said is drawn."""
    found: dict[str, Any] = {}
    for name in over:
        value, space = getattr(base, name), SPACE[name]
        if isinstance(space, tuple):
            found[name] = value
        elif space.relative:
            found[name] = 1.0
        elif space.low <= value <= space.high:
            found[name] = value
    return found


def _drawn(
    trial: "optuna.Trial", over: Sequence[str], config: TrainConfig, base: TrainConfig, observer: Observer
) -> dict[str, Any]:
    """What a trial is given; its rates are counted from those that the recipe has for its optimiser."""
    drawn: dict[str, Any] = {}
    if "optimizer" in over:
        drawn["optimizer"] = _suggest(trial, "optimizer", base)
        if drawn["optimizer"] != base.optimizer:
            base = plan(replace(config, optimizer=drawn["optimizer"]), observer).config
    return {name: drawn.get(name) or _suggest(trial, name, base) for name in over}


def _suggest(trial: "optuna.Trial", name: str, base: TrainConfig) -> Any:
    space, own = SPACE[name], getattr(base, name)
    if isinstance(space, tuple):
        return trial.suggest_categorical(name, space if own in space else (*space, own))
    drawn = trial.suggest_float(name, space.low, space.high, log=space.relative)
    return float(f"{own * drawn if space.relative else drawn:.4g}")


def _trial_config(
    config: TrainConfig, base: TrainConfig, options: Mapping[str, Any], place: Path
) -> TrainConfig:
    return replace(config, output=str(place), **{**_pinned(config, base, options), **options})


def _pinned(config: TrainConfig, base: TrainConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    """What fine-tuning would choose anew in every run; another optimiser has rates of its own."""
    if not config.weights:
        return {}
    rate = {} if "optimizer" in options else {"learning_rate": base.learning_rate}
    return {"unfreeze": base.unfreeze, **rate}


def _run_trial(study: "optuna.Study", trial: "optuna.Trial", config: TrainConfig, observer: Observer) -> None:
    from optuna.trial import TrialState

    try:
        result = train_bundle(config, _Watching(trial, observer))
    except _PrunedError:
        study.tell(trial, state=TrialState.PRUNED)
        observer.message(f"trial {trial.number}: stopped, others were better by then")
    except TrainingError as error:
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=TrialState.FAIL)
        observer.message(f"trial {trial.number}: failed: {error}")
    else:
        score = result.metrics.get("top1", result.metrics.get("map", 0.0))
        study.tell(trial, score)
        observer.message(f"trial {trial.number}: val {score:.4f}")


def _place(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:03}"


def _finished(study: "optuna.Study") -> list[TrialResult]:
    """Complete and pruned trials and those that failed by themselves, in order."""
    results = []
    for trial in study.get_trials(deepcopy=False):
        name = trial.state.name.lower()
        if name in ("complete", "pruned") or (name == "fail" and "error" in trial.user_attrs):
            values = trial.intermediate_values
            score = trial.value if name == "complete" else values[max(values)] if values else None
            options = trial.user_attrs.get("options", {})
            state = "failed" if name == "fail" else name
            results.append(TrialResult(trial.number, state, score, options, max(values, default=0)))
    return results


def _write(study: "optuna.Study", folder: Path, config: TrainConfig, base: TrainConfig) -> SweepResult | None:
    """Leave table, picture and best options; of all but the best trial remove what is large.

    None while no trial is complete.
    """
    trials = _finished(study)
    complete = [trial for trial in trials if trial.state == "complete" and trial.score is not None]
    if not complete:
        return None
    best = max(complete, key=lambda trial: (trial.score or 0.0, -trial.number))
    for trial in trials:
        if trial.number != best.number:
            for name in ("bundle", "checkpoints"):
                shutil.rmtree(_place(folder, trial.number) / name, ignore_errors=True)
    content = {
        "best": asdict(best),
        "folder": str(_place(folder, best.number)),
        "trials": [asdict(trial) for trial in trials],
    }
    atomic_write_text(folder / TRIALS_FILE, json.dumps(content, indent=1) + "\n")
    remark = f"# The best of {len(trials)} trials: {best.score:.4f} on val.\n"
    atomic_write_text(
        folder / BEST_FILE,
        remark + to_toml({**_said(config), **_pinned(config, base, best.options), **best.options}),
    )
    draw_sweep(trials, best, folder / PICTURE_FILE)
    return SweepResult(folder, tuple(trials), best)


def to_toml(options: Mapping[str, Any]) -> str:
    """Texts, numbers and truth values as TOML, one option a line."""
    lines = []
    for name, value in options.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)
        lines.append(f"{name.replace('_', '-')} = {text}\n")
    return "".join(lines)


def _shown(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items()) or "none given"
