"""`inception atlas`: what a network sees in a collection of images, as a map of pictures."""

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inception.cli.console import print_json, progress_bar, say
from inception.errors import UsageError

if TYPE_CHECKING:
    from inception.explain.atlas import AtlasCell, Points
    from inception.explain.render import Settings
    from inception.runtime.classifier import Classifier

SUFFIXES = (".html", ".htm")
LAYOUT_NAMES = ("umap", "tsne", "pca")


@click.command(short_help="Map what a network sees in a collection of images.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("paths", metavar="IMAGES…", nargs=-1, required=True)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="The page, .html; the map alone is beside it as .png.",
)
@click.option("--layer", help="Whose values are mapped. [mixed4c, else a middle stage]")
@click.option(
    "--layout",
    default="umap",
    show_default=True,
    type=click.Choice(LAYOUT_NAMES),
    help="umap needs inception[atlas].",
)
@click.option(
    "--grid", default=10, show_default=True, type=click.IntRange(1, 60), help="Cells along each side."
)
@click.option(
    "--places", default=32, show_default=True, type=click.IntRange(1, 4096), help="Of each image, at random."
)
@click.option(
    "--least", default=5, show_default=True, type=click.IntRange(1), help="Cells with fewer places are empty."
)
@click.option(
    "--size", type=click.IntRange(16, 512), help="Side of a picture. [96, small networks: their own]"
)
@click.option(
    "--steps", default=128, show_default=True, type=click.IntRange(1, 10000), help="Steps of a picture."
)
@click.option("--limit", default=2000, show_default=True, type=click.IntRange(1), help="Most images.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="auto", show_default=True, help="float32, bfloat16 or auto.")
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as one JSON object.")
def atlas(
    bundle: Path,
    paths: tuple[str, ...],
    output: Path,
    layer: str | None,
    layout: str,
    grid: int,
    places: int,
    least: int,
    size: int | None,
    steps: int,
    limit: int,
    seed: int,
    device: str,
    precision: str,
    as_json: bool,
) -> None:
    """Map what BUNDLE sees in IMAGES (files, folders, archives, or `-` for a list on standard input).

    Pictures are kept in a folder beside the page, and a second run makes only those that are missing.
    """
    from inception.explain.atlas import check_layout, collect_points, lay_out, make_cells
    from inception.explain.layers import middle_layer
    from inception.explain.render import Settings
    from inception.runtime.inputs import expand_inputs
    from inception.runtime.loading import load

    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"the output is an .html, not '{output.name}'")
    check_layout(layout)
    started = time.monotonic()
    classifier = load(bundle, device)
    layer = layer or middle_layer(classifier.model)
    settings = Settings(size or _own_size(classifier), steps, seed=seed, precision=precision)
    with progress_bar("reading images", None) as bar:
        items = expand_inputs(paths, sys.stdin)
        points = collect_points(
            classifier, items, layer, places=places, limit=limit, seed=seed, progress=bar.advance
        )
    say(f"{len(points.vectors):,} places of {len(points.names):,} images; laying them out by {layout}")
    cells = make_cells(points, lay_out(points.vectors, layout, seed), grid, least)
    details = {
        "Network": classifier.bundle.network,
        "Layer": f"{layer}, {points.vectors.shape[1]} channels",
        "Images": f"{len(points.names):,} of {', '.join(paths)}; {len(points.vectors):,} places",
        "Layout": f"{layout}, {grid} x {grid} cells, at least {least} places each",
        "Pictures": f"{steps} steps, seed {seed}",
    }
    try:
        _draw(classifier, points, cells, output, settings, grid, details)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    seconds = time.monotonic() - started
    if as_json:
        counts = {"images": len(points.names), "places": len(points.vectors), "cells": len(cells)}
        made = {"output": str(output), "picture": str(output.with_suffix(".png")), "layer": layer}
        print_json({**made, **counts, "seconds": round(seconds, 2)})
    say(f"drawn: {output}, {len(cells)} cells ({seconds:.0f} s)")


def _own_size(classifier: "Classifier") -> int | None:
    from inception.explain.render import SMALL_INPUT

    small = min(classifier.preprocess.height, classifier.preprocess.width) < SMALL_INPUT
    return None if small else SMALL_INPUT


def _draw(
    classifier: "Classifier",
    points: "Points",
    cells: "list[AtlasCell]",
    output: Path,
    settings: "Settings",
    grid: int,
    details: dict[str, str],
) -> None:
    from inception.explain.atlas import atlas_picture, cell_examples, draw_cells
    from inception.explain.atlas_page import write_atlas
    from inception.explain.gallery import save_png

    folder = output.with_name(re.sub(r"\.html?$", "", output.name) + "-pictures")
    with progress_bar("drawing", len(cells)) as bar:
        pictures = draw_cells(
            classifier, points, cells, folder, settings, lambda n: bar.advance(n, "pictures")
        )
    title = f"{classifier.bundle.network}: {points.layer}"
    examples = cell_examples(classifier, points, cells)
    write_atlas(output, points, cells, pictures, examples, title=title, details=details)
    save_png(atlas_picture(cells, pictures, grid), output.with_suffix(".png"), {"Title": title})
