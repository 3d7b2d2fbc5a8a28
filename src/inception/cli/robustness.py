"""`inception robustness`: accuracy on worse pictures, as table, JSON and picture."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from inception.cli.console import print_json, print_table, progress_bar, say
from inception.cli.evaluate_many import change, chosen
from inception.cli.read_options import say_reading
from inception.data.loader import Loader
from inception.errors import UsageError
from inception.evaluate.corruptions import CORRUPTIONS, Robustness, corrupted_views, measure_robustness
from inception.evaluate.measure import open_to_measure
from inception.files import atomic_write_bytes, atomic_write_text
from inception.runtime.loading import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg")


@click.command(short_help="Measure a bundle on worse images.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", default="auto", help="train, val, test, all; auto is test, else val, else all.")
@click.option("--limit", type=click.IntRange(1), help="Measure so many images only, drawn with a fixed seed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw accuracy by severity (.png or .svg).")
@click.option(
    "--examples", type=click.Path(path_type=Path), help="Draw one image under every corruption (.png, .svg)."
)
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="float32", show_default=True, help="float32, bfloat16 or auto.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where named sets are kept.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256))
@click.option("--strict", is_flag=True, help="Stop at the first unreadable image.")
def robustness(
    bundle: Path,
    data: str,
    split: str,
    limit: int | None,
    as_json: bool,
    picture: Path | None,
    examples: Path | None,
    device: str,
    precision: str,
    data_root: Path | None,
    workers: int,
    strict: bool,
) -> None:
    """Measure BUNDLE on the images of DATA as they are, and under Gaussian noise, Gaussian blur, JPEG
    compression and brightness, each at the five severities of ImageNet-C (Hendrycks and Dietterich 2019).
    """
    for path in filter(None, (picture, examples)):
        if path.suffix.lower() not in PICTURES:
            raise UsageError(f"{path}: pictures are written as {' or '.join(PICTURES)}")
    classifier = load(bundle, device, precision)
    dataset, split, samples = open_to_measure(classifier, data, split, data_root)
    say_reading(dataset)
    loader = Loader(dataset, chosen(samples, limit), workers, strict, cache_bytes=0)
    with progress_bar("corrupting", len(loader)) as bar:
        result = measure_robustness(classifier, loader, lambda count: bar.advance(count, "images"))
    for name, reason in list(result.unreadable.items())[:5]:
        say(f"left out {name}: {reason}")
    if picture:
        from inception.evaluate.corruption_plots import robustness_curves

        _draw(robustness_curves(result), picture)
    if examples:
        from inception.evaluate.corruption_plots import corruption_sheet

        readable = next(
            index for index, sample in enumerate(loader.samples) if sample.path not in loader.unreadable
        )
        views = corrupted_views(
            loader.image(readable, classifier.preprocess), classifier.preprocess, readable
        )
        views = views.flip(1) if classifier.preprocess.color == "BGR" else views
        pictures = [view.permute(1, 2, 0).squeeze(-1).numpy() for view in views]
        _draw(corruption_sheet(pictures, list(CORRUPTIONS)), examples)
    if as_json:
        print_json({**result.to_dict(), "data": dataset.name, "split": split})
    else:
        _print(f"{dataset.name} ({split}, {result.n:,} images)", result)


def _draw(figure: "Figure", path: Path) -> None:
    from inception.evaluate.plots import to_png, to_svg

    try:
        if path.suffix.lower() == ".svg":
            atomic_write_text(path, to_svg(figure))
        else:
            atomic_write_bytes(path, to_png(figure))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    say(f"picture: {path}")


def _print(title: str, result: Robustness) -> None:
    rows = [("clean", "", f"{100 * result.top1:.2f}%", "", f"{100 * result.top5:.2f}%")]
    rows += [
        (
            level.corruption,
            str(level.severity),
            f"{100 * level.top1:.2f}%",
            change(level.top1_change, level.top1_change_interval),
            f"{100 * level.top5:.2f}%",
        )
        for level in result.levels
    ]
    rows.append(("mean of all", "", f"{100 * result.mean_top1:.2f}%", "", ""))
    print_table((title, "severity", "top-1", "points, 95% interval", "top-5"), rows)
