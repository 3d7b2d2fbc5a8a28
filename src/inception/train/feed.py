"""Batches brought to the device while it still works on the batch before."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from inception.data.loader import Batch

Item = TypeVar("Item")


def one_ahead(items: Iterable[Item], start: Callable[[Item], Item]) -> Iterator[Item]:
    """`start` of every item, in order; each is begun before the one before it is handed out."""
    waiting: list[Item] = []
    for item in items:
        waiting.append(start(item))
        if len(waiting) == 2:
            yield waiting.pop(0)
    yield from waiting


def feed(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches, on CUDA copied from pinned memory on a stream of their own, one batch ahead of the step.

    Elsewhere they pass as they are: `Step` moves what is not on the device yet.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def start(batch: Batch) -> Batch:
        with torch.cuda.stream(stream):
            images, targets = (
                tensor.pin_memory().to(device, non_blocking=True) for tensor in (batch.images, batch.targets)
            )
        return batch._replace(images=images, targets=targets)

    for batch in one_ahead(batches, start):
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for tensor in (batch.images, batch.targets):
            tensor.record_stream(current)
        yield batch
