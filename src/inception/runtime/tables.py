"""Answers as tables in files: JSON lines, CSV and Parquet, written row by row."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inception.data.csv_text import CsvWriter
from inception.errors import UsageError
from inception.files import atomic_path

TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")
_ROW_GROUP = 1024
Row = Mapping[str, Any]
"""`Prediction.to_dict`: `path`, and `top` or `error`."""


def require_pyarrow(instead: str) -> Any:
    """The module pyarrow with its Parquet part. Raises UsageError naming the extra and what needs none."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"Parquet files need pyarrow; install it with: pip install 'inception[embed]', or {instead}"
        ) from error
    return pyarrow


def check_table(path: Path) -> None:
    """Raise UsageError unless answers can be written to a file of this name."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise UsageError(f"{path}: answers are written as {', '.join(TABLE_SUFFIXES[:-1])} or .parquet")
    if path.suffix.lower() == ".parquet":
        require_pyarrow("write .jsonl")


def errors_path(path: Path) -> Path:
    """Where the inputs without an answer are listed: `answers.errors.csv` beside `answers.csv`."""
    return path.with_suffix(f".errors{path.suffix}")


def score_heading(top: int) -> list[str]:
    """Columns of CSV for the `top` best answers: `label1`, `probability1`, `label2`, …"""
    return [name for rank in range(1, top + 1) for name in (f"label{rank}", f"probability{rank}")]


def score_cells(row: Row, top: int) -> list[str]:
    """What stands in those columns; empty where there are fewer answers, or an error."""
    scores = row.get("top", ())[:top]
    cells = [cell for score in scores for cell in (score["label"], f"{score['probability']:.6f}")]
    return [*cells, *[""] * (2 * (top - len(scores)))]


@contextmanager
def answers_table(path: Path, top: int) -> Iterator[Callable[[Row], None]]:
    """A function that adds the row of an answer; the file takes its place when the block ends without error.

    JSON lines: `path` and `top`, as `inception predict --json`. CSV: `path`, then `label` and `probability`
    for each of `top` ranks. Parquet: `path` and the lists `labels`, `indices` (int32) and `probabilities`
    (float32).
    """
    heading = ["path", *score_heading(top)]
    with _table(path, heading, ("path", "labels", "indices", "probabilities"), _answer_columns, top) as add:
        yield add


@contextmanager
def errors_table(path: Path) -> Iterator[Callable[[Row], None]]:
    """As `answers_table`, for inputs without an answer: columns `path` and `error`."""
    names = ("path", "error")
    with _table(path, names, names, lambda row: [row["path"], row["error"]], 0) as add:
        yield add


def _answer_columns(row: Row) -> list[Any]:
    top = row["top"]
    return [row["path"], *([score[key] for score in top] for key in ("label", "index", "probability"))]


@contextmanager
def _table(
    path: Path, heading: Any, columns: Any, column_values: Callable[[Row], list[Any]], top: int
) -> Iterator[Callable[[Row], None]]:
    if path.suffix.lower() == ".parquet":
        with _parquet_table(path, columns, column_values) as add:
            yield add
        return
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        if path.suffix.lower() == ".jsonl":

            def add_line(row: Row) -> None:
                stream.write(_json_line(row))

            yield add_line
            return
        writer = CsvWriter(stream)
        writer.writerow(heading)

        def add_cells(row: Row) -> None:
            writer.writerow([encodable(cell) for cell in _cells(row, top)])

        yield add_cells


@contextmanager
def _parquet_table(
    path: Path, columns: Any, column_values: Callable[[Row], list[Any]]
) -> Iterator[Callable[[Row], None]]:
    arrow = require_pyarrow("write .jsonl")
    types = {
        "labels": arrow.list_(arrow.string()),
        "indices": arrow.list_(arrow.int32()),
        "probabilities": arrow.list_(arrow.float32()),
    }
    schema = arrow.schema([(name, types.get(name, arrow.string())) for name in columns])
    rows: list[list[Any]] = []
    with atomic_path(path) as temporary, arrow.parquet.ParquetWriter(temporary, schema) as writer:

        def flush() -> None:
            values = [list(column) for column in zip(*rows, strict=True)]
            writer.write_table(arrow.table(values, schema=schema))
            rows.clear()

        def add(row: Row) -> None:
            rows.append([_parquet_cell(value) for value in column_values(row)])
            if len(rows) == _ROW_GROUP:
                flush()

        yield add
        if rows:
            flush()


def _cells(row: Row, top: int) -> list[str]:
    if "error" in row:
        return [row["path"], row["error"]]
    return [row["path"], *score_cells(row, top)]


def _json_line(row: Row) -> str:
    line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # file names need not be text; JSON can escape what cannot be encoded
        line = json.dumps(row)
    return line + "\n"


def _parquet_cell(value: Any) -> Any:
    if isinstance(value, list):
        return [_parquet_cell(item) for item in value]
    return encodable(value) if isinstance(value, str) else value


def encodable(text: str) -> str:
    """The text, with escapes for what UTF-8 does not have: file names need not be text."""
    return text.encode("utf-8", "backslashreplace").decode()
