"""What a run is between two steps, as plain tensors and JSON, and back into the live objects."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from inception.train.optimizer import AveragedWeights
from inception.train.ranks import Ranks

UNREADABLE_KEPT = 1000
UNREADABLE_COST = 200_000
"""So many unreadable images are remembered, of about so many bytes of JSON (a mark that could stand between
values counts as 20, for the limit on values); the others are met and noted again."""
_LARGEST = 2**53


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        epoch: epochs finished.
        batch: batches finished in the current epoch.
        step: optimiser steps made, skipped ones included.
        best_score: the best validation accuracy so far (several labels an image: mean average precision).
        best_epoch: the epoch whose weights are kept.
        stale: epochs since the best validation score.
        skipped: steps left out because a loss or a gradient was not finite.
        loss_sum, correct, seen: of the current epoch's training batches.
        seconds: time trained in the current epoch.
        unreadable: path -> reason.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_score: float = -1.0
    best_epoch: int = 0
    stale: int = 0
    skipped: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    unreadable: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form."""
        kept, cost = {}, 0
        for path, reason in list(self.unreadable.items())[:UNREADABLE_KEPT]:
            text = json.dumps({path: reason})
            cost += len(text) + 20 * sum(map(text.count, ",:[{"))
            if cost > UNREADABLE_COST:
                break
            kept[path] = reason
        return {**asdict(self), "unreadable": kept}

    @classmethod
    def from_dict(cls, values: Any) -> "Progress":
        """Inverse of `to_dict`. Raises ValueError for anything that a run cannot have reached."""
        defaults = {item.name: getattr(cls(), item.name) for item in fields(cls)}
        if not isinstance(values, dict) or values.keys() != defaults.keys():
            raise ValueError("the progress has other entries than a run's")
        for name, default in defaults.items():
            value = values[name]
            if type(value) is not type(default):
                raise ValueError(f"progress.{name} is {value!r:.40}")
            if isinstance(value, int) and not 0 <= value < _LARGEST:
                raise ValueError(f"progress.{name} is {value!r:.40}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"progress.{name} is {value}")
        if not all(isinstance(text, str) for pair in values["unreadable"].items() for text in pair):
            raise ValueError("progress.unreadable must be texts")
        return cls(**values)


@dataclass(frozen=True)
class TrainingState:
    """The live objects a checkpoint is taken of and put back into."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedWeights
    progress: Progress
    device: torch.device
    ranks: Ranks


def require_finite(state: TrainingState) -> None:
    """Raise ValueError, naming a tensor, when the network's weights are no longer finite."""
    for name, value in state.network.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(name)


def to_tensors(state: TrainingState) -> dict[str, Tensor]:
    """Every tensor a bit-identical continuation needs, on the CPU.

    Every process of a run must call it: their random states are gathered.
    """
    tensors: dict[str, Tensor] = {}
    for rank, value in enumerate(state.ranks.gather(torch.get_rng_state())):
        tensors[f"random.cpu.{rank}"] = value
    if state.device.type == "cuda":
        for rank, value in enumerate(state.ranks.gather(torch.cuda.get_rng_state(state.device))):
            tensors[f"random.cuda.{rank}"] = value
    tensors |= {f"network.{name}": value for name, value in state.network.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.values.items()}
    tensors["average_steps"] = torch.tensor(state.average.steps)
    for index, values in _optimizer_state(state.optimizer).items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def from_tensors(state: TrainingState, tensors: Mapping[str, Tensor], progress: Progress) -> None:
    """Put tensors and progress back into the live objects, in place.

    Raises ValueError, with the live objects in an undefined state, unless every tensor has the name, shape
    and type that this run's own would have.
    """
    live: dict[str, Tensor] = {f"network.{n}": v for n, v in state.network.state_dict().items()}
    live |= {f"average.{n}": v for n, v in state.average.values.items()}
    live["average_steps"] = torch.tensor(0)
    state.optimizer.state.clear()
    if progress.step:
        _make_optimizer_state(state.optimizer)
        for index, values in _optimizer_state(state.optimizer).items():
            live |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
    stored = {name: value for name, value in tensors.items() if not name.startswith("random.")}
    wrong = [name for name in {**live, **stored} if not _alike(live.get(name), stored.get(name))]
    if wrong:
        raise ValueError(
            f"{len(wrong)} tensors are missing, unexpected or of another form, such as {wrong[0]:.80}"
        )
    with torch.no_grad():
        for name, value in live.items():
            value.copy_(stored[name])
    state.average.steps = int(live["average_steps"])
    if state.average.steps < 0:
        raise ValueError("average_steps is negative")
    for item in fields(Progress):
        setattr(state.progress, item.name, getattr(progress, item.name))
    _restore_random(state, tensors)


def _alike(live: Tensor | None, stored: Tensor | None) -> bool:
    return (
        live is not None and stored is not None and live.shape == stored.shape and live.dtype == stored.dtype
    )


def _restore_random(state: TrainingState, tensors: Mapping[str, Tensor]) -> None:
    rank = state.ranks.rank
    kinds = ["cpu", *(["cuda"] if state.device.type == "cuda" else [])]
    for kind in kinds:
        value = tensors.get(f"random.{kind}.{rank}")
        if value is None and f"random.{kind}.0" in tensors and rank:
            # Continued by more processes than it was begun with: each needs a stream of its own.
            torch.manual_seed(state.progress.step * state.ranks.count + rank)
            continue
        if value is None or value.dtype != torch.uint8 or value.dim() != 1:
            raise ValueError(f"random.{kind} is missing or of another form")
        if kind == "cpu":
            torch.set_rng_state(value)
        else:
            torch.cuda.set_rng_state(value, state.device)


def _optimizer_state(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """What the optimiser remembers of each parameter, by the parameter's position in the groups."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        index: {key: value for key, value in optimizer.state[parameter].items() if value is not None}
        for index, parameter in enumerate(parameters)
        if parameter in optimizer.state
    }


def _make_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Let an unused optimiser make its state as its first step would; the weights are overwritten later."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter in parameters:
        parameter.grad = None
