"""`inception calibrate`: make a bundle's confidence honest, and teach it to answer `unknown`."""

from pathlib import Path

import click

from inception.cli.console import print_json, print_table, progress_bar, say
from inception.cli.read_options import say_reading
from inception.data.loader import Loader
from inception.data.sources import Dataset
from inception.errors import UsageError
from inception.evaluate.measure import collect_logits, open_to_measure
from inception.evaluate.recalibrate import Calibration, calibrate
from inception.runtime.classifier import Classifier
from inception.runtime.loading import load
from inception.runtime.optimize import write_optimized
from inception.runtime.plan import Plan, read_plan
from inception.weights.bundle import save_bundle


@click.command(short_help="Make a bundle's confidence honest.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data")
@click.option(
    "--split", default="auto", help="train, val, test or all; auto is val where there is one, else all."
)
@click.option(
    "--keep",
    default=0.95,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the right answers that the threshold keeps.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write another bundle instead of this one."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="float32", show_default=True, help="float32, bfloat16 or auto.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where named sets are kept.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256))
def calibrate_command(
    bundle: Path,
    data: str,
    split: str,
    keep: float,
    output: Path | None,
    as_json: bool,
    device: str,
    precision: str,
    data_root: Path | None,
    workers: int,
) -> None:
    """Fit the temperature (Guo et al. 2017) and the threshold of `predict --unknown` on the labelled images
    of DATA, and store both in BUNDLE.

    The images must be neither those trained on nor those that are tested on later. Which answer is best does
    not change, only how sure it says to be.
    """
    planned = _plan_for(bundle, output or bundle)
    classifier = load(bundle, device, precision)
    dataset, split = _choose(classifier, data, split, data_root)
    loader = Loader(dataset, dataset.split(split), workers, cache_bytes=0)
    with progress_bar("calibrating", len(loader)) as bar:
        logits, targets = collect_logits(classifier, loader, lambda count: bar.advance(count, "images"))
    for path, reason in list(loader.unreadable.items())[:5]:
        say(f"left out {path}: {reason}")
    source = {"data": dataset.name, "data_fingerprint": dataset.fingerprint, "split": split}
    result = calibrate(classifier.bundle, logits, targets, keep=keep, source=source)
    if planned:
        write_optimized(result.bundle, *planned, output or bundle)
    else:
        save_bundle(result.bundle, output or bundle)
    if as_json:
        print_json({**result.to_dict(), "data": dataset.name, "split": split})
    else:
        _print(f"{dataset.name} ({split})", result)
    say(f"stored in {output or bundle}; test it on other images: inception evaluate {output or bundle} DATA")


def _plan_for(source: Path, target: Path) -> tuple[Plan, dict[str, bytes]] | None:
    """The plan of an optimised bundle, which does not depend on what is fitted. Raises UsageError."""
    planned = read_plan(source)
    if planned and (target.suffix == ".zip" or target.is_file()):
        raise UsageError(f"{target}: an optimised bundle is written as a folder; name one with -o")
    return planned


def _choose(classifier: Classifier, data: str, split: str, data_root: Path | None) -> tuple[Dataset, str]:
    dataset, measured, _ = open_to_measure(classifier, data, split, data_root)
    say_reading(dataset)
    if split == "auto":
        split = "val" if measured != "all" and "val" in dataset.splits else measured
        if split == "test":
            say(f"{dataset.name} has no val split: calibrating on test, which then no longer tests")
    return dataset, split


def _print(title: str, result: Calibration) -> None:
    before, after = result.before, result.after
    threshold, refused = result.bundle.unknown_threshold or 0.0, result.refused
    rows = [
        ("images", "", f"{after.n:,}"),
        ("temperature", f"{before.temperature:.3f}", f"{after.temperature:.3f}"),
        ("loss", f"{before.loss:.4f}", f"{after.loss:.4f}"),
        (
            "calibration error",
            f"{100 * before.calibration_error:.2f}%",
            f"{100 * after.calibration_error:.2f}%",
        ),
        ("threshold for unknown", "", f"{100 * threshold:.1f}%"),
        ("right answers kept", "", f"{100 * result.kept:.1f}%"),
        ("wrong answers refused", "", "-" if refused is None else f"{100 * refused:.1f}%"),
    ]
    print_table((title, "before", "after"), rows)
