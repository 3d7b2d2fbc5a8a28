"""The processes of one run: alone, or several under `torchrun`, which add up what each has computed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from inception.errors import TrainingError, UsageError, first_line

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others; one that dies is noticed at once."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: its number, from 0; process 0 writes and speaks.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def add_up(self, values: Tensor) -> Tensor:
        """The sum of every process's `values`, the same bits on each."""
        if self.count == 1:
            return values
        total = values.to(_device(), copy=True)
        dist.all_reduce(total)
        return total.to(values.device)

    def gather(self, value: Tensor) -> list[Tensor]:
        """Every process's `value` (same shape and type everywhere), in the order of their numbers."""
        if self.count == 1:
            return [value]
        sent = value.to(_device())
        received = [torch.empty_like(sent) for _ in range(self.count)]
        dist.all_gather(received, sent)
        return [item.to(value.device) for item in received]

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            dist.barrier()


ALONE = Ranks()


def _device() -> torch.device:
    """Where the processes' exchange takes place: nccl moves tensors of GPUs, gloo of the CPU."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def own_device(device: torch.device) -> torch.device:
    """This process's own GPU where `torchrun` started several; any other device as it is."""
    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(own)
    return own


def is_first_process() -> bool:
    """Whether this process writes and speaks: the only one, or number 0 of those that `torchrun` started."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def was_restarted() -> bool:
    """Whether `torchrun` has started the processes anew after one of them died."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _join(backend: str) -> None:
    """Become one of the group, at addresses that no earlier attempt has left behind.

    On one machine a restart finds torchrun's store as the dead processes left it: without a name for each
    attempt, a process may take a dead one's address for its neighbour's and wait for it in vain.
    """
    store, rank, count = next(rendezvous("env://", timeout=TIMEOUT))
    if os.environ.get("LOCAL_WORLD_SIZE") == str(count):
        store = PrefixStore(f"attempt {_restarts()}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)


@contextmanager
def joined(device_type: str) -> Iterator[Ranks]:
    """The processes that `torchrun` started, joined during the block; without it, this one alone.

    Raises UsageError when they cannot be joined, TrainingError when one of them is lost.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    try:
        _join("nccl" if device_type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"the processes cannot be joined ({first_line(error)}): use torchrun") from error
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        # What gloo and nccl raise has no type of its own everywhere.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise TrainingError(
            f"another process of the run was lost ({first_line(error)}): "
            "torchrun --max-restarts continues from the last checkpoint"
        ) from error
    finally:
        dist.destroy_process_group()
