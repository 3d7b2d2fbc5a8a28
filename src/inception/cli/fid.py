"""`inception fid`: FID, KID and Inception Score of generated images, with the network they are defined on."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from inception.cli.console import print_json, print_table, progress_bar, say
from inception.errors import DownloadError, UsageError
from inception.evaluate.generative import (
    SPLITS,
    SUBSETS,
    Statistics,
    feature_statistics,
    frechet_distance,
    inception_score,
    kernel_distance,
    load_statistics,
    save_statistics,
)
from inception.evaluate.inception2015 import NUM_FEATURES, Activations, Extractor, Resize, load_network_2015
from inception.files import sha256_file
from inception.runtime.inputs import expand_inputs
from inception.weights.fetch import fetch

CATALOGUE_NAME = "inception_v3.google_2015"
WEIGHTS_VARIABLE = "INCEPTION_FID_WEIGHTS"


@click.command(short_help="FID, KID and Inception Score of generated images.")
@click.argument("real")
@click.argument("generated")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    envvar=WEIGHTS_VARIABLE,
    help="Google's classify_image_graph_def.pb, or the .pth of pytorch-fid or torch-fidelity; "
    f"else ${WEIGHTS_VARIABLE}, else the cache of `inception weights get`.",
)
@click.option(
    "--resize",
    default="tensorflow",
    show_default=True,
    type=click.Choice(("tensorflow", "torch", "antialias")),
    help="To 299 x 299 as the original and torch-fidelity, as pytorch-fid, or smoothed as clean-fid.",
)
@click.option(
    "--kid-subset-size",
    type=click.IntRange(2),
    help="Images in a subset of KID; 1000, or fewer if there are.",
)
@click.option(
    "--splits", default=SPLITS, show_default=True, type=click.IntRange(1), help="Of Inception Score."
)
@click.option(
    "--save-stats", type=click.Path(path_type=Path), help="Keep mean and covariance of REAL as .npz."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--device", default="auto", show_default=True)
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1, 4096))
def fid(
    real: str,
    generated: str,
    weights: Path | None,
    resize: Resize,
    kid_subset_size: int | None,
    splits: int,
    save_stats: Path | None,
    as_json: bool,
    device: str,
    batch_size: int,
) -> int:
    """Compare GENERATED images with REAL ones (folders or archives; or .npz statistics, for FID alone).

    Numbers compare only at the same number of images, the same --resize and the same weights.
    """
    weights = weights or _cached_weights()
    extractor = Extractor(load_network_2015(weights), resize, device)
    sides = [_Side(path, extractor, batch_size) for path in (real, generated)]
    if save_stats:
        _save(save_stats, sides[0].statistics)
    content = {
        **_scores(sides, kid_subset_size, splits),
        "n": [side.count for side in sides],
        "resize": resize,
        "weights": weights.name,
        "weights_sha256": sha256_file(weights),
    }
    for side in sides:
        if side.count is not None and side.count < NUM_FEATURES:
            say(
                f"{side.path}: {side.count:,} images are fewer than the {NUM_FEATURES:,} features, so that "
                "FID is far too large; compare only with FID of as many images, or use KID"
            )
    if as_json:
        print_json(content)
    else:
        _print(content, generated)
    return 1 if any(side.failed for side in sides) else 0


def _cached_weights() -> Path:
    try:
        return fetch(CATALOGUE_NAME, offline=True)
    except DownloadError as error:
        raise UsageError(
            f"FID is defined on Google's Inception-v3 weights of 2015, which are not here: run `inception "
            f"weights get {CATALOGUE_NAME} --allow-unverified -o BUNDLE` once, or give --weights FILE with "
            "pytorch-fid's pt_inception-2015-12-05-6726825d.pth"
        ) from error


class _Side:
    """One of the two sets: images, or statistics alone."""

    def __init__(self, path: str, extractor: Extractor, batch_size: int) -> None:
        self.path = path
        self.activations: Activations | None = None
        self.failed = 0
        self.count: int | None = None
        if path.lower().endswith(".npz"):
            self.statistics: Statistics = load_statistics(Path(path))
            return
        with progress_bar(Path(path).name, None) as bar:
            self.activations = extractor.activations(
                expand_inputs((path,), ()),
                batch_size=batch_size,
                progress=lambda count: bar.advance(count, "images"),
            )
        for name, reason in list(self.activations.unreadable.items())[:5]:
            say(f"left out {name}: {reason}")
        self.failed = len(self.activations.unreadable)
        self.count = len(self.activations.features)
        self.statistics = feature_statistics(self.activations.features)


def _scores(sides: list[_Side], subset_size: int | None, splits: int) -> dict[str, Any]:
    real, generated = sides
    kid = score = None
    if real.activations is not None and generated.activations is not None:
        pair = (real.activations.features, generated.activations.features)
        spread = kernel_distance(*pair, subset_size=subset_size)
        size = subset_size or min(1000, *(len(features) for features in pair))
        kid = {**asdict(spread), "subsets": SUBSETS, "subset_size": size}
    if generated.activations is not None:
        logits = generated.activations.logits
        parts = min(splits, len(logits))
        score = {**asdict(inception_score(logits, splits=parts)), "splits": parts}
    return {
        "fid": frechet_distance(real.statistics, generated.statistics),
        "kid": kid,
        "inception_score": score,
    }


def _save(path: Path, statistics: Statistics) -> None:
    try:
        save_statistics(path, statistics)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    say(f"statistics: {path}")


def _print(content: dict[str, Any], generated: str) -> None:
    def spread(value: dict[str, Any] | None) -> str:
        return "needs images" if value is None else f"{value['mean']:.5g} ± {value['std']:.2g}"

    kid, score = content["kid"], content["inception_score"]
    counts = " and ".join("statistics" if count is None else f"{count:,} images" for count in content["n"])
    rows = [
        ("FID", f"{content['fid']:.4f}"),
        ("KID" if kid is None else f"KID, {kid['subsets']} subsets of {kid['subset_size']:,}", spread(kid)),
        (f"Inception Score of {Path(generated).name}", spread(score)),
    ]
    print_table((f"{counts}, resize {content['resize']}", ""), rows)
