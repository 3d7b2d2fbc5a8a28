"""`inception embed`: features of images to .npy or .parquet, nearest neighbours, duplicates."""

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from inception.cli.console import print_json, print_table, say
from inception.data.csv_text import CsvWriter
from inception.errors import UsageError
from inception.evaluate.embeddings import (
    FEATURES,
    POOLS,
    Embedding,
    Pool,
    duplicate_groups,
    embed_stream,
    nearest,
    stacked,
)
from inception.files import atomic_path, atomic_write_text
from inception.runtime.inputs import expand_inputs
from inception.runtime.loading import load
from inception.runtime.tables import encodable, require_pyarrow

FORMATS = (".npy", ".parquet")
INSTEAD = "write .npy"
_ROW_GROUP = 1024


@click.command(short_help="Features of images, their neighbours and duplicates.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True)
@click.option(
    "--endpoint",
    default=FEATURES,
    show_default=True,
    help="A stage by any tool's name, `features` (what the classifier reads) or `logits`.",
)
@click.option(
    "--pool",
    default="average",
    show_default=True,
    type=click.Choice(POOLS),
    help="How a stage's map becomes one vector; none keeps all of it.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to FILE.npy or FILE.parquet.")
@click.option("--neighbors", type=click.IntRange(1), help="Print so many nearest images for each.")
@click.option(
    "--query", multiple=True, help="Ask for the neighbours of these images only (file, folder, archive)."
)
@click.option(
    "--duplicates",
    type=click.FloatRange(0, 1, min_open=True),
    help="Print groups of images whose cosine similarity is at least this, such as 0.98.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="float32", show_default=True, help="float32, bfloat16 or auto.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1, 4096))
def embed(
    bundle: Path,
    paths: tuple[str, ...],
    endpoint: str,
    pool: Pool,
    output: Path | None,
    neighbors: int | None,
    query: tuple[str, ...],
    duplicates: float | None,
    as_json: bool,
    device: str,
    precision: str,
    batch_size: int,
) -> int:
    """Compute features of every image in PATHS: files, folders, .zip or .tar archives, or `-` for a list of
    paths on standard input.

    A bad image is named on standard error and does not stop the rest. Exit code 1 when any image failed.
    """
    _check(output, neighbors, query, duplicates)
    classifier = load(bundle, device, precision)

    def embeddings(sources: Iterable[str]) -> Iterator[Embedding]:
        items = expand_inputs(sources, sys.stdin)
        return embed_stream(classifier, items, endpoint=endpoint, pool=pool, batch_size=batch_size)

    stream = embeddings(paths)
    if output is not None and output.suffix.lower() == ".parquet" and not (neighbors or duplicates):
        written, failed = write_parquet(output, stream, endpoint)
        _report(output, written, failed)
        return 1 if failed else 0
    kept, failed = _collect(stream)
    if output is not None:
        _write(output, kept, endpoint)
        _report(output, len(kept), failed)
    vectors, names = stacked(kept), [item.path for item in kept]
    if neighbors:
        asked, missed = _collect(embeddings(query)) if query else (kept, 0)
        failed += missed
        places, similarity = nearest(vectors, stacked(asked), neighbors, same=not query)
        _print_neighbors([item.path for item in asked], names, places, similarity, as_json)
    if duplicates:
        groups = [[names[index] for index in group] for group in duplicate_groups(vectors, duplicates)]
        _print_duplicates(groups, as_json)
    return 1 if failed else 0


def _check(
    output: Path | None, neighbors: int | None, query: tuple[str, ...], duplicates: float | None
) -> None:
    if output is None and neighbors is None and duplicates is None:
        raise UsageError(
            "name a place for the features (-o FILE.npy), or ask for --neighbors or --duplicates"
        )
    if output is not None and output.suffix.lower() not in FORMATS:
        raise UsageError(f"{output}: features are written as {' or '.join(FORMATS)}")
    if output is not None and output.suffix.lower() == ".parquet":
        require_pyarrow(INSTEAD)
    if query and not neighbors:
        raise UsageError("--query asks for neighbours: add --neighbors 5")


def _collect(stream: Iterator[Embedding]) -> tuple[list[Embedding], int]:
    """The readable ones, and how many were not."""
    kept, failed = [], 0
    for item in stream:
        if item.error is None:
            kept.append(item)
        else:
            say(f"left out {item.path}: {item.error}")
            failed += 1
    return kept, failed


def _write(output: Path, kept: Sequence[Embedding], endpoint: str) -> None:
    """`.npy` with the paths of its rows beside it, or `.parquet`."""
    if output.suffix.lower() == ".parquet":
        write_parquet(output, iter(kept), endpoint)
        return
    text = io.StringIO()
    writer = CsvWriter(text)
    writer.writerow(("row", "path"))
    writer.writerows(enumerate(item.path for item in kept))
    try:
        with atomic_path(output) as temporary, temporary.open("wb") as stream:
            np.save(stream, stacked(kept))
        atomic_write_text(output.with_suffix(".csv"), text.getvalue())
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error


def write_parquet(output: Path, stream: Iterator[Embedding], endpoint: str) -> tuple[int, int]:
    """Columns `path` (text) and `embedding` (list of float32), a row group at a time; rows and failures."""
    arrow = require_pyarrow(INSTEAD)
    schema = arrow.schema(
        [("path", arrow.string()), ("embedding", arrow.list_(arrow.float32()))],
        metadata={"endpoint": endpoint},
    )
    rows: list[Embedding] = []
    written = failed = 0
    try:
        with atomic_path(output) as temporary, arrow.parquet.ParquetWriter(temporary, schema) as writer:

            def flush() -> None:
                columns = [[encodable(item.path) for item in rows], [item.vector for item in rows]]
                writer.write_table(arrow.table(columns, schema=schema))

            for item in stream:
                if item.error is not None:
                    say(f"left out {item.path}: {item.error}")
                    failed += 1
                    continue
                rows.append(item)
                written += 1
                if len(rows) == _ROW_GROUP:
                    flush()
                    rows.clear()
            if rows:
                flush()
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    return written, failed


def _report(output: Path, written: int, failed: int) -> None:
    left_out = f", {failed} left out" if failed else ""
    say(f"{written:,} images in {output}{left_out}")


def _print_neighbors(
    asked: Sequence[str], names: Sequence[str], places: Any, similarity: Any, as_json: bool
) -> None:
    answers = [
        [(names[place], float(value)) for place, value in zip(*row, strict=True)]
        for row in zip(places.tolist(), similarity.tolist(), strict=True)
    ]
    if as_json:
        for path, found in zip(asked, answers, strict=True):
            print_json(
                {"path": path, "neighbors": [{"path": name, "similarity": value} for name, value in found]}
            )
        return
    rows = [
        (path, ", ".join(f"{name} {value:.3f}" for name, value in found))
        for path, found in zip(asked, answers, strict=True)
    ]
    print_table(("image", "nearest, with cosine similarity"), rows)


def _print_duplicates(groups: Sequence[Sequence[str]], as_json: bool) -> None:
    if as_json:
        for group in groups:
            print_json({"duplicates": list(group)})
        return
    if not groups:
        say("no images are alike enough to be duplicates")
        return
    print_table(("alike", "images"), [(str(len(group)), ", ".join(group)) for group in groups])
