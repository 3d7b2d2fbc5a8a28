"""A training run at rest, between two steps: plain tensors and JSON in one safetensors file."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from inception.errors import TrainingError, first_line
from inception.files import atomic_path
from inception.train.optimizer import AveragedWeights

CHECKPOINT_FILE = "checkpoint.safetensors"


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        epoch: epochs finished.
        batch: batches finished in the current epoch.
        step: optimiser steps made.
        best_top1: the best validation accuracy so far.
        best_epoch: the epoch whose weights are kept.
        loss_sum, correct, seen: of the current epoch's training batches.
        seconds: time trained so far.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_top1: float = -1.0
    best_epoch: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingState:
    """The live objects a checkpoint is taken of and put back into."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedWeights
    progress: Progress


def save_checkpoint(path: Path, state: TrainingState, config: dict[str, Any], fingerprint: str) -> None:
    """Write everything a bit-identical continuation needs, atomically and durably."""
    tensors: dict[str, Tensor] = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    tensors |= {f"network.{name}": value for name, value in state.network.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.values.items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{index}.{key}": torch.as_tensor(value)
            for key, value in values.items()
            if value is not None
        }
    metadata = {
        "progress": json.dumps(asdict(state.progress)),
        "config": json.dumps(config),
        "data_fingerprint": fingerprint,
        "average_steps": str(state.average.steps),
    }
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary, metadata
        )


def read_config_of(path: Path) -> dict[str, Any]:
    """The configuration of the run a checkpoint belongs to. Raises TrainingError when it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            values = json.loads((file.metadata() or {})["config"])
        return dict(values)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path} is not a usable checkpoint ({first_line(error)}): remove it to start anew"
        ) from error


def load_checkpoint(path: Path, state: TrainingState, fingerprint: str) -> None:
    """Put the run at `path` back into the live objects.

    Raises TrainingError when it does not fit them, or was trained on other data than `fingerprint`'s.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if metadata["data_fingerprint"] != fingerprint:
            raise TrainingError(f"the data has changed since {path} was written: start a new run")
        progress = json.loads(metadata["progress"])
        state.network.load_state_dict(_below(tensors, "network."))
        _load_optimizer(state.optimizer, _below(tensors, "optimizer."))
        for name, value in _below(tensors, "average.").items():
            state.average.values[name].copy_(value)
        state.average.steps = int(metadata["average_steps"])
        for key, value in progress.items():
            setattr(state.progress, key, value)
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"{path} does not fit this run ({first_line(error)}): remove it to start anew"
        ) from error


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    content = optimizer.state_dict()
    content["state"] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        parameter = parameters[int(index)]
        # Fused optimisers walk through memory: a parameter's state must lie in it as the parameter does.
        same = value.shape == parameter.shape
        laid_out = torch.empty_like(parameter, requires_grad=False).copy_(value) if same else value
        content["state"].setdefault(int(index), {})[key] = laid_out
    optimizer.load_state_dict(content)
