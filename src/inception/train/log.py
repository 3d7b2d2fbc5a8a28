"""What a run leaves to be looked at: one JSON line an epoch, TensorBoard events, a picture of the curves."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from inception.errors import UsageError, WriteError
from inception.files import atomic_write_bytes, atomic_write_text, read_regular, remove_leftovers

METRICS_FILE = "metrics.jsonl"
METRICS_LIMIT_BYTES = 256 << 20
Row = dict[str, Any]


class Observer(Protocol):
    """Who is told how a run goes; every method may do nothing."""

    def message(self, text: str) -> None:
        """Something a person should read once."""

    def downloading(self, done: int, total: int | None) -> None:
        """`done` of `total` bytes of a named set's file have arrived."""

    def epoch_started(self, epoch: int, epochs: int, images: int) -> None:
        """Epoch `epoch` (from 1) of `epochs` begins, with `images` images; 0 of 0 computes
        features, 0 of 1 tries something out."""

    def batch_done(self, images: int, loss: float) -> None:
        """A batch of `images` images was trained on; `loss` is its loss."""

    def epoch_done(self, row: Row) -> None:
        """An epoch ended; `row` is its line in metrics.jsonl."""


class Silent:
    """An observer that says nothing."""

    def message(self, text: str) -> None:
        """See `Observer.message`."""

    def downloading(self, done: int, total: int | None) -> None:
        """See `Observer.downloading`."""

    def epoch_started(self, epoch: int, epochs: int, images: int) -> None:
        """See `Observer.epoch_started`."""

    def batch_done(self, images: int, loss: float) -> None:
        """See `Observer.batch_done`."""

    def epoch_done(self, row: Row) -> None:
        """See `Observer.epoch_done`."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl; a last line cut off by a crash, and what is no row, is left out."""
    try:
        lines = read_regular(path, METRICS_LIMIT_BYTES).decode("utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if isinstance(row, dict) and isinstance(row.get("epoch"), int):
            rows.append({name: math.nan if value is None else value for name, value in row.items()})
    return rows


class MetricsLog:
    """Appends one row an epoch to `folder`/metrics.jsonl, to TensorBoard (if installed) and to curves.png.

    Args:
        folder: of the run; what a killed process left half-written in it is removed.
        keep_epochs: rows of later epochs, written after the checkpoint, are dropped.
        writes: False in all but one process of a run, where nothing is written.
    """

    def __init__(self, folder: Path, keep_epochs: int, writes: bool = True) -> None:
        self.rows: list[Row] = []
        self.writes = writes
        if not writes:
            return
        self.path = folder / METRICS_FILE
        self.curves = folder / "curves.png"
        remove_leftovers(self.path)
        remove_leftovers(self.curves)
        self.rows = [row for row in read_rows(self.path) if row["epoch"] <= keep_epochs]
        self._write()
        self.events = folder / "tensorboard"
        with self._events_written():
            self._board = _tensorboard_writer(self.events, keep_epochs)

    def add(self, row: Row) -> None:
        """Append a row everywhere. Raises WriteError."""
        self.rows.append(row)
        if not self.writes:
            return
        self._write()
        if self._board is not None:
            with self._events_written():
                for name, value in row.items():
                    if name != "epoch" and isinstance(value, int | float):
                        self._board.add_scalar(name, value, row["epoch"])

    @contextmanager
    def _events_written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WriteError(self.events, error) from error

    def close(self) -> None:
        """Flush the events and draw the curves (needs matplotlib). Raises WriteError."""
        if not self.writes:
            return
        if self._board is not None:
            with self._events_written():
                self._board.close()
        from inception.evaluate import plots

        with suppress(UsageError):  # no matplotlib, no picture
            atomic_write_bytes(self.curves, plots.to_png(plots.training_curves(self.rows)))

    def _write(self) -> None:
        text = "".join(json.dumps(_without_nan(row)) + "\n" for row in self.rows)
        atomic_write_text(self.path, text)


def _without_nan(row: Row) -> Row:
    """The row with null for what is not finite: other tools' JSON knows no NaN."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def _tensorboard_writer(folder: Path, keep_epochs: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # On resume, events past the checkpoint are superseded rather than shown twice.
    return SummaryWriter(str(folder), purge_step=keep_epochs + 1)
