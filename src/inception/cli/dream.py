"""`inception dream`: what a network sees in a picture, drawn into the picture."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inception.cli.console import progress_bar, say
from inception.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

    from inception.explain.dream import DreamSettings
    from inception.explain.objectives import Objective
    from inception.runtime.classifier import Classifier

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


@click.command(short_help="Draw into a picture what a network sees in it.")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--bundle", "-b", required=True, type=click.Path(path_type=Path), help="Whose dream.")
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="PNG or JPEG; GIF or MP4: a zoom into the dream.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="Layer or any target of visualize, repeatable; they are added. [mixed4c, else a middle stage]",
)
@click.option("--guide", type=click.Path(path_type=Path), help="Picture whose features the dream takes over.")
@click.option("--octaves", default=4, show_default=True, type=click.IntRange(1, 12))
@click.option("--octave-scale", default=1.4, show_default=True, type=click.FloatRange(1.05, 3.0))
@click.option("--steps", default=10, show_default=True, type=click.IntRange(1, 500), help="In each octave.")
@click.option("--strength", default=1.5, show_default=True, type=click.FloatRange(0.01, 50.0))
@click.option("--max-side", type=click.IntRange(32, 8192), help="Shrink larger pictures to this side first.")
@click.option(
    "--frames", default=24, show_default=True, type=click.IntRange(2, 2000), help="Of an animation."
)
@click.option(
    "--zoom", default=1.04, show_default=True, type=click.FloatRange(1.001, 1.5), help="Of each frame."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="auto", show_default=True, help="float32, bfloat16 or auto.")
def dream(
    image: Path,
    bundle: Path,
    output: Path,
    targets: tuple[str, ...],
    guide: Path | None,
    octaves: int,
    octave_scale: float,
    steps: int,
    strength: float,
    max_side: int | None,
    frames: int,
    zoom: float,
    seed: int,
    device: str,
    precision: str,
) -> None:
    """Dream on IMAGE with the network in BUNDLE; the picture keeps its size."""
    from inception.explain.animation import FORMATS, check_format
    from inception.explain.dream import DreamSettings
    from inception.runtime.classifier import open_image
    from inception.runtime.loading import load

    suffix = output.suffix.lower()
    if suffix in FORMATS:
        check_format(output)
    elif suffix not in PICTURE_SUFFIXES:
        raise UsageError(
            f"a dream is written as {', '.join((*PICTURE_SUFFIXES, *FORMATS))}, not '{output.name}'"
        )
    classifier = load(bundle, device)
    picture = open_image(image, classifier.preprocess.bits)
    if max_side:
        picture.thumbnail((max_side, max_side))
    objective = _objective(classifier, targets, guide)
    settings = DreamSettings(octaves, octave_scale, steps, strength, seed=seed, precision=precision)
    started = time.monotonic()
    try:
        _write(classifier, picture, objective, settings, output, frames, zoom)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    say(f"dreamt: {output} ({picture.width} x {picture.height}, {time.monotonic() - started:.0f} s)")


def _objective(classifier: "Classifier", targets: tuple[str, ...], guide: Path | None) -> "Objective":
    from inception.explain.dream import guided
    from inception.explain.layers import middle_layer
    from inception.explain.objectives import parse
    from inception.runtime.classifier import open_image

    network = classifier.model
    if not targets:
        targets = (middle_layer(network),)
    if guide is not None:
        if any(":" in target or " " in target for target in targets):
            raise UsageError("a guided dream takes layers as --target, such as mixed4c")
        picture = open_image(guide, classifier.preprocess.bits)
        picture.thumbnail((2 * network.image_size, 2 * network.image_size))
        return guided(targets, network, classifier.preprocess, picture)
    total, *others = (parse(target, classifier.labels) for target in targets)
    for objective in others:
        total = total + objective
    return total


def _write(
    classifier: "Classifier",
    picture: "Image.Image",
    objective: "Objective",
    settings: "DreamSettings",
    output: Path,
    frames: int,
    factor: float,
) -> None:
    from inception.explain.animation import FORMATS, write_animation
    from inception.explain.dream import dream as dream_on
    from inception.explain.dream import zoom as zoom_into
    from inception.files import atomic_path

    moving = output.suffix.lower() in FORMATS
    total = settings.octaves * settings.steps * (frames if moving else 1)
    with progress_bar("dreaming", total) as bar:

        def progress() -> None:
            bar.advance(1)

        if moving:
            pictures: Iterator[Image.Image] = zoom_into(
                classifier.model,
                classifier.preprocess,
                picture,
                objective,
                settings,
                frames,
                factor,
                progress,
            )
            write_animation(output, pictures)
            return
        result = dream_on(classifier.model, classifier.preprocess, picture, objective, settings, progress)
        kind = "PNG" if output.suffix.lower() == ".png" else "JPEG"
        with atomic_path(output) as temporary:
            result.save(temporary, kind, **({"quality": 92} if kind == "JPEG" else {}))
