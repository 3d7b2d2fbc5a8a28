"""The parts of a job written by workers on a Ray cluster, or by several processes of this machine.

Ray Data sends part numbers to a pool of actors. Each holds the bundle, decodes the part's images ahead of the
network, and writes the part's file; only numbers travel. When an actor or its machine dies, Ray gives its
part to another, and since a part's bytes depend on the job alone, every part is there exactly once. Inputs,
bundle and output must be at the same paths on every machine.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inception.errors import InceptionError, UsageError, first_line
from inception.runtime.batch import Job, answer_parts
from inception.runtime.loading import load


def _import_ray() -> Any:
    # It otherwise sends usage statistics, and starts a dashboard nobody asked for.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # On a busy machine its processes need more than the 30 seconds it gives them.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(
            "--engine ray needs Ray; install it with: pip install 'inception[ray]', or leave --engine out"
        ) from error
    return ray


def processors_each(nodes: Sequence[int], workers: int) -> int:
    """The most processors that each of `workers` can have, given the processors of every machine.

    A worker lies on one machine. Raises UsageError when there are more workers than processors.
    """
    for share in range(max(nodes, default=0), 0, -1):
        if sum(processors // share for processors in nodes) >= workers:
            return share
    raise UsageError(f"the cluster has {sum(nodes)} processors: ask for so many --workers at most")


class RayEngine:
    """An engine for `run_job`.

    A cluster that is running (`RAY_ADDRESS`) is used, else one is started on this machine. Each worker gets
    an equal share of the processors, and a GPU of its own when the job's device is `cuda`.

    Args:
        workers: how many hold the bundle.

    Raises UsageError when Ray is not installed.
    """

    def __init__(self, workers: int) -> None:
        self.workers, self._ray = workers, _import_ray()

    def __call__(self, job: Job, parts: Sequence[int]) -> Iterator[int]:
        """Write the parts, in any order."""
        ray = self._ray
        started = not ray.is_initialized()
        if started:
            self._start()
        try:
            yield from self._answer(job, parts)
        except ray.exceptions.RayError as error:
            raise InceptionError(f"Ray could not finish the job ({first_line(_root(error))})") from error
        finally:
            if started:
                ray.shutdown()

    def _start(self) -> None:
        try:
            self._ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        except Exception as error:  # Ray raises plain ones of several types
            raise InceptionError(f"Ray cannot be started or reached ({first_line(error)})") from error

    def _answer(self, job: Job, parts: Sequence[int]) -> Iterator[int]:
        ray = self._ray
        nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        share = processors_each(nodes, min(self.workers, len(parts)))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        # Held here as long as actors may have to be started again with it.
        shared = ray.put(job)
        answered = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
        answered = answered.map_batches(
            _PartWriter,
            fn_constructor_args=(shared,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(parts))),
            num_cpus=share,
            num_gpus=int(job.device.startswith("cuda")),
        )
        for row in answered.iter_rows():
            yield int(row["part"])


class _PartWriter:
    """An actor: the bundle in memory."""

    def __init__(self, job: Any) -> None:
        import ray

        self.job: Job = ray.get(job) if isinstance(job, ray.ObjectRef) else job
        self.classifier = load(self.job.bundle, self.job.device, self.job.precision)

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
        for _ in answer_parts(self.job, self.classifier, [int(part) for part in batch["part"]]):
            pass
        return batch


def _root(error: BaseException) -> BaseException:
    """What went wrong in the worker."""
    cause = getattr(error, "cause", None) or error.__cause__
    return _root(cause) if isinstance(cause, BaseException) else error
