"""`inception export`: a bundle for another runtime, checked there."""

from pathlib import Path

import click

from inception.cli.console import print_json, print_table


@click.command(short_help="Write a bundle for another runtime, and check it there.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--to", "form", required=True, type=click.Choice(["onnx", "openvino", "torch-export"]))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option(
    "--input",
    "pixel_type",
    default="uint8",
    show_default=True,
    type=click.Choice(["uint8", "float32"]),
    help="Type of the pixels 0..255.",
)
@click.option(
    "--tolerance",
    default=1e-4,
    show_default=True,
    type=click.FloatRange(0.0, 1.0),
    help="Largest logit difference, relative to the largest logit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def export(bundle: Path, form: str, output: Path, pixel_type: str, tolerance: float, as_json: bool) -> None:
    """Write BUNDLE to one file with labels and preprocessing inside, run it in its runtime, and compare.

    Images go in as pixels 0..255 of the right size, N x C x H x W; normalisation is in the graph. Exit code
    1, and no file, when the answers differ by more than the tolerance.
    """
    from inception.runtime.export import export_bundle

    found = export_bundle(bundle, output, form, pixel_type, tolerance)  # type: ignore[arg-type]
    if as_json:
        print_json(vars(found))
        return
    rows = [
        ("written", ", ".join(found.files)),
        ("checked with", f"{found.runtime}, {found.images} images"),
        ("largest logit difference", f"{found.difference:.2e} ({found.relative:.2e} of the largest logit)"),
        ("largest probability difference", f"{found.probability_difference:.2e}"),
        ("tolerance", f"{found.tolerance:.0e} of the largest logit"),
    ]
    print_table((f"export to {form}", ""), rows)
