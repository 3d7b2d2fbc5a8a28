"""What a run leaves to be looked at: one JSON line an epoch, TensorBoard events, a picture of the curves."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from inception.errors import UsageError
from inception.files import atomic_write_bytes, atomic_write_text

METRICS_FILE = "metrics.jsonl"
Row = dict[str, Any]


class Observer(Protocol):
    """Who is told how a run goes; every method may do nothing."""

    def message(self, text: str) -> None:
        """Something a person should read once."""

    def downloading(self, done: int, total: int | None) -> None:
        """`done` of `total` bytes of a named set's file have arrived."""

    def epoch_started(self, epoch: int, epochs: int, images: int) -> None:
        """Epoch `epoch` (from 1) of `epochs` begins, with `images` images; 0 of 0 computes features."""

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
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if isinstance(row, dict) and isinstance(row.get("epoch"), int):
            rows.append(row)
    return rows


class MetricsLog:
    """Appends one row an epoch to `folder`/metrics.jsonl, to TensorBoard (if installed) and to curves.png."""

    def __init__(self, folder: Path, keep_epochs: int) -> None:
        self.path = folder / METRICS_FILE
        self.curves = folder / "curves.png"
        self.rows = [row for row in read_rows(self.path) if row["epoch"] <= keep_epochs]
        self._write()
        self._board = _tensorboard_writer(folder / "tensorboard", keep_epochs)

    def add(self, row: Row) -> None:
        """Append a row everywhere."""
        self.rows.append(row)
        self._write()
        if self._board is not None:
            for name, value in row.items():
                if name != "epoch" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, row["epoch"])

    def close(self) -> None:
        """Flush the events and draw the curves (needs matplotlib)."""
        if self._board is not None:
            self._board.close()
        from inception.evaluate import plots

        with suppress(UsageError):  # no matplotlib, no picture
            atomic_write_bytes(self.curves, plots.to_png(plots.training_curves(self.rows)))

    def _write(self) -> None:
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        atomic_write_text(self.path, text)


def _tensorboard_writer(folder: Path, keep_epochs: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # On resume, events past the checkpoint are superseded rather than shown twice.
    return SummaryWriter(str(folder), purge_step=keep_epochs + 1)
