"""`inception benchmark`: how fast a bundle answers here."""

import json
from pathlib import Path

import click

from inception.cli.console import print_table, say
from inception.errors import UsageError
from inception.files import atomic_write_text


@click.command(short_help="Measure how fast a bundle answers here.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--batch",
    "batches",
    multiple=True,
    default=(1, 16),
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Images at a time; repeat it for several.",
)
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(3, 10000))
@click.option(
    "--threads", default=0, type=click.IntRange(0, 1024), help="0: every core (a plan keeps its own)."
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Also write the rows to this file."
)
def benchmark(
    bundle: Path, batches: tuple[int, ...], rounds: int, threads: int, json_path: Path | None
) -> None:
    """Time BUNDLE as `inception.load` opens it, in turn with its network unmodified in each engine installed.

    `ratio` is our time divided by the engine's. The roofline compares the operations done with the fastest
    matrix product PyTorch makes here.
    """
    from inception.runtime.benchmark import benchmark_bundle
    from inception.runtime.timing import machine

    found = benchmark_bundle(bundle, tuple(dict.fromkeys(batches)), rounds, threads)
    where = machine()
    rows = [
        (
            row["engine"],
            row["precision"],
            str(row["batch"]),
            f"{row['median_ms']:.2f}",
            f"{row['quartile_low_ms']:.2f} to {row['quartile_high_ms']:.2f}",
            f"{row['images_per_s']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['gflops']:.0f}",
            f"{100 * row['share_of_peak']:.0f}%",
        )
        for row in found["rows"]
    ]
    headings = (
        "engine",
        "precision",
        "batch",
        "median ms",
        "quartiles",
        "images/s",
        "ratio",
        "GFLOP/s",
        "of peak",
    )
    print_table(
        headings, rows, f"{found['rows'][0]['model']}, {rounds} rounds in turns, {where['processor']}"
    )
    peaks = ", ".join(f"{kind} {peak:.0f} GFLOP/s" for kind, peak in found["peak_gflops"].items())
    say(f"{found['gflop_per_image']:.2f} GFLOP an image; measured peak of a matrix product: {peaks}")
    say(f"processes wanting to run in the last minute: {where['load']} (this one included)")
    for engine, reason in found["skipped"].items():
        say(f"left out {engine}: {reason}")
    if json_path is not None:
        try:
            atomic_write_text(json_path, json.dumps({**found, "machine": where}, indent=2) + "\n")
        except OSError as error:
            raise UsageError(f"cannot write {json_path}: {error.strerror or error}") from error
