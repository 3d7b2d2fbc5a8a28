"""`inception shard`: a data set as tar shards that stream."""

from pathlib import Path

import click

from inception.cli.console import print_json, print_table, progress_bar, say
from inception.cli.read_options import read_options, say_reading
from inception.data.options import ReadOptions
from inception.data.sharding import parse_size, write_shards
from inception.data.sources import open_dataset


@click.command(short_help="Write a data set as tar shards.")
@click.argument("data")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the shards.")
@click.option("--size", default="256MB", show_default=True, help="Largest size of a shard: 64MiB, 1GB, …")
@click.option("--images-per-shard", type=click.IntRange(1), help="Largest number of images of a shard.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where named sets are kept.")
@click.option("--val-fraction", default=0.1, show_default=True, help="As in train.")
@click.option("--seed", default=0, show_default=True, help="As in train.")
@read_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def shard(
    data: str,
    output: Path,
    size: str,
    images_per_shard: int | None,
    data_root: Path | None,
    val_fraction: float,
    seed: int,
    as_json: bool,
    options: ReadOptions,
) -> int:
    """Copy the images of DATA into .tar files of about equal size, in WebDataset's layout, each split apart.

    The folder is then data for every command. The bytes depend on DATA and the options alone. When the
    command is stopped or killed, the same command goes on behind the last whole shard.
    """
    limit = parse_size(size)
    dataset = open_dataset(data, options=options, data_root=data_root, val_fraction=val_fraction, seed=seed)
    say_reading(dataset)
    with progress_bar("sharding", len(dataset.samples)) as bar:
        before = 0

        def progress(done: int, total: int) -> None:
            nonlocal before
            bar.advance(done - before, "images")
            before = done

        written = write_shards(
            dataset, output, shard_bytes=limit, shard_images=images_per_shard, progress=progress
        )
    if written.kept:
        say(f"{written.kept} shards were there already")
    if as_json:
        print_json({**vars(written), "folder": str(written.folder)})
        return 0
    rows = [(split, f"{written.images[split]:,}", str(count)) for split, count in written.shards.items()]
    print_table(("split", "images", "shards"), rows, title=f"{output}: {written.bytes / 1e6:,.1f} MB")
    return 0
