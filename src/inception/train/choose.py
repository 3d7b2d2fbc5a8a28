"""Fine-tuning that chooses by itself: short pilot runs on copies of the network, decided on val.

A candidate is a rate and the stages it trains. Each pilot is a twentieth of the run, with its own whole
schedule. The first candidate, the recipe's own, is kept unless
another is better by more than one standard error of their difference: few images prove little.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice, product
from typing import Any

import torch

from inception.data.loader import Batch
from inception.errors import TrainingError
from inception.nets.network import Network
from inception.train.config import TrainConfig, facts_of
from inception.train.layers import EVERYTHING, last_third
from inception.train.optimizer import is_batch_normalized
from inception.train.recipes import LAST_THIRD, SMALL_IMAGE, alternatives, recipe_named
from inception.train.schedule import rate_factor
from inception.train.trainee import Setting, chosen_augment, make_trainee, score_error, validate

SHARE, LEAST_STEPS, MOST_STEPS = 0.05, 4, 60
CHOICE_FILE = "choice.json"


@dataclass(frozen=True)
class Candidate:
    """A way to fine-tune: the first stage trained (or `all`) and the peak learning rate."""

    unfreeze: str
    learning_rate: float


@dataclass(frozen=True)
class Pilot:
    """What a candidate reached on val; where its loss was not finite, the score 0 and no loss."""

    unfreeze: str
    learning_rate: float
    score: float
    loss: float | None


@dataclass(frozen=True)
class Choice:
    """The pilots, in the order they were made, the chosen one, and the steps of each."""

    pilots: tuple[Pilot, ...]
    chosen: Pilot
    steps: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form."""
        return {
            "steps": self.steps,
            "chosen": asdict(self.chosen),
            "pilots": [asdict(pilot) for pilot in self.pilots],
        }


def candidates(asked: TrainConfig, config: TrainConfig, network: Network) -> tuple[Candidate, ...]:
    """The ways that the recipe leaves open: those it tries for each option that was not `asked` for.

    Empty where at most one is left. `config` is the resolved form of `asked`.
    """
    if not config.weights or config.freeze:
        return ()
    recipe = recipe_named(config.recipe)
    facts = facts_of(config, config.image_size <= SMALL_IMAGE, is_batch_normalized(network))
    rates = alternatives(recipe, "learning_rate", facts)
    stages = alternatives(recipe, "unfreeze", facts)
    if asked.learning_rate or asked.find_learning_rate or not rates:
        rates = (config.learning_rate,)
    if asked.unfreeze or not stages:
        stages = (config.unfreeze or EVERYTHING,)
    named = (last_third(network) if stage == LAST_THIRD else stage for stage in stages)
    found = tuple(Candidate(stage, rate) for stage, rate in product(named, rates))
    return found if len(found) > 1 else ()


def choose(network: Network, config: TrainConfig, setting: Setting, tried: Sequence[Candidate]) -> Choice:
    """Try every candidate on a copy of `network`; nothing but the images' cache is different afterwards.

    Args:
        network: as the run begins; behind a new classifier the linear probe's.
        config: resolved.
        setting: with a val split.
        tried: at least one candidate; the first is preferred.

    The linear probe is no candidate: a few steps disturb it before many improve on it, so pilots would nearly
    always lose to it. It competes with every epoch of the run instead.
    """
    per_epoch = setting.train.batch_count(config.batch_size)
    steps = min(max(round(SHARE * config.epochs * per_epoch), LEAST_STEPS), MOST_STEPS)
    pilots = []
    with untouched_random_state(setting.device):
        for candidate in tried:
            # Every pilot draws the same dropout masks and sees the same views.
            torch.manual_seed(config.seed)
            pilots.append(_pilot(network, config, setting, candidate, steps))
            _tell(setting, pilots[-1])
    return Choice(tuple(pilots), _best(pilots, setting), steps)


def _best(pilots: Sequence[Pilot], setting: Setting) -> Pilot:
    """The first, or the best where that is better by more than one standard error of their difference, were
    they measured on images of their own.
    """
    best = max(pilots, key=lambda pilot: (pilot.score, -(math.inf if pilot.loss is None else pilot.loss)))
    images = max(len(setting.val), 1) if setting.val is not None else 1
    error = math.sqrt(2.0) * score_error(best.score, images)
    return best if best.score > pilots[0].score + error else pilots[0]


def _pilot(
    network: Network, config: TrainConfig, setting: Setting, candidate: Candidate, steps: int
) -> Pilot:
    config = replace(config, unfreeze=candidate.unfreeze, learning_rate=candidate.learning_rate)
    trainee = make_trainee(copy.deepcopy(network), config, setting)
    setting.observer.epoch_started(0, 1, steps * config.batch_size)
    try:
        for number, batch in enumerate(pilot_batches(config, setting, steps)):
            rate = config.learning_rate * rate_factor("cosine", number, steps, steps, config.warmup)
            tally = trainee.step(batch, rate)
            setting.observer.batch_done(tally.seen, tally.loss)
    except TrainingError:
        return Pilot(candidate.unfreeze, candidate.learning_rate, 0.0, None)
    loss, score = _measured(trainee.averaged(), setting)
    return Pilot(candidate.unfreeze, candidate.learning_rate, score, loss)


def pilot_batches(config: TrainConfig, setting: Setting, steps: int) -> Iterator[Batch]:
    """The first `steps` batches that the run itself would see."""
    augment = chosen_augment(config)

    def endless() -> Iterator[Batch]:
        for epoch in range(steps):
            yield from setting.train.training_batches(
                setting.preprocess, augment, config.batch_size, config.seed, epoch
            )

    return islice(endless(), steps)


@contextmanager
def untouched_random_state(device: torch.device) -> Iterator[None]:
    """PyTorch's random generators are after the block as before it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def _measured(network: Network, setting: Setting) -> tuple[float, float]:
    measured = validate(network, setting, setting.val) if setting.val is not None else None
    return measured if measured is not None else (math.nan, 0.0)


def _tell(setting: Setting, pilot: Pilot) -> None:
    stages = "all stages" if pilot.unfreeze == EVERYTHING else f"from {pilot.unfreeze} on"
    score = f"mAP {pilot.score:.4f}" if setting.multilabel else f"{100 * pilot.score:.2f}%"
    loss = "not finite" if pilot.loss is None else f"{pilot.loss:.4f}"
    setting.observer.message(f"pilot: {stages} at {pilot.learning_rate:g}: val {score}, loss {loss}")
