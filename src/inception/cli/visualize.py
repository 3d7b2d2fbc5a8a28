"""`inception visualize`: pictures of what channels, neurons, directions and classes look for."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inception.cli.console import print_json, progress_bar, say
from inception.errors import UsageError

if TYPE_CHECKING:
    from inception.explain.objectives import Objective
    from inception.explain.render import Settings
    from inception.runtime.classifier import Classifier

PICTURE_STEPS, GALLERY_STEPS = 512, 256
GALLERY_SUFFIXES = (".html", ".htm")


@click.command(short_help="Draw what a channel, neuron or class looks for.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("targets", metavar="TARGET…", nargs=-1, required=True)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="PNG of the targets side by side, or .html: a gallery of whole layers.",
)
@click.option(
    "--size", type=click.IntRange(16, 1024), help="Side in pixels. [128, small networks: their own]"
)
@click.option("--steps", type=click.IntRange(1, 10000), help="Steps of a picture. [512, in a gallery 256]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option(
    "--diversity", type=click.IntRange(2, 16), help="This many pictures of one target, unlike each other."
)
@click.option("--to", "other", metavar="TARGET", help="Pictures on the way from the target to this one.")
@click.option(
    "--count", default=5, show_default=True, type=click.IntRange(2, 16), help="Pictures on that way."
)
@click.option("--examples", metavar="IMAGES", help="In a gallery: images to show beside each channel.")
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="auto", show_default=True, help="float32, bfloat16 or auto.")
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as one JSON object.")
def visualize(
    bundle: Path,
    targets: tuple[str, ...],
    output: Path,
    size: int | None,
    steps: int | None,
    seed: int,
    diversity: int | None,
    other: str | None,
    count: int,
    examples: str | None,
    device: str,
    precision: str,
    as_json: bool,
) -> None:
    """Draw what each TARGET in BUNDLE looks for.

    LAYER:97 is a channel, LAYER:97@centre or LAYER:97@3,5 one neuron, LAYER:97=1,30=-0.5 a direction,
    LAYER everything in it, logits:goldfish a class. Targets add and multiply:
    'mixed4a:97 + 0.5 * mixed4b:12'. In a gallery TARGET is LAYER, LAYER:0-23 or LAYER:3,97; pictures are kept
    beside the page, and a second run makes only those that are missing.
    """
    from inception.explain.render import Settings
    from inception.runtime.loading import load

    gallery = output.suffix.lower() in GALLERY_SUFFIXES
    _check(output, gallery, targets, diversity, other, examples)
    classifier = load(bundle, device)
    settings = Settings(
        size=size,
        steps=steps or (GALLERY_STEPS if gallery else PICTURE_STEPS),
        seed=seed,
        precision=precision,
        shared=other is not None,
    )
    started = time.monotonic()
    try:
        if gallery:
            drawn = _gallery(classifier, targets, output, settings, examples)
        else:
            drawn = _pictures(classifier, targets, output, settings, diversity, other, count)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    seconds = time.monotonic() - started
    if as_json:
        print_json({"output": str(output), "targets": drawn, "seconds": round(seconds, 2)})
    say(f"drawn: {output} ({seconds:.0f} s)")


def _check(
    output: Path,
    gallery: bool,
    targets: tuple[str, ...],
    diversity: int | None,
    other: str | None,
    examples: str | None,
) -> None:
    if not gallery and output.suffix.lower() != ".png":
        raise UsageError(f"the output is a .png, or an .html for a gallery, not '{output.name}'")
    if gallery and (diversity or other):
        raise UsageError("--diversity and --to make a .png, not a gallery")
    if examples and not gallery:
        raise UsageError("--examples stand in a gallery: give an .html as --output")
    if diversity and other:
        raise UsageError("--diversity and --to exclude each other")
    if (diversity or other) and len(targets) > 1:
        raise UsageError("--diversity and --to take one target")


def _pictures(
    classifier: "Classifier",
    targets: tuple[str, ...],
    output: Path,
    settings: "Settings",
    diversity: int | None,
    other: str | None,
    count: int,
) -> list[str]:
    from inception.explain.gallery import save_png
    from inception.explain.objectives import diverse, each, interpolate, parse
    from inception.explain.pictures import enlarged, sheet
    from inception.explain.render import render, to_image

    found = [parse(target, classifier.labels) for target in targets]
    jobs: list[tuple[Objective, list[int]]] = [(objective, [settings.seed]) for objective in found]
    texts = [objective.text for objective in found]
    if diversity:
        layer = sorted(found[0].layers)[0]
        jobs = [(diverse(found[0], layer, 1.0), [settings.seed + i for i in range(diversity)])]
        texts = [f"{texts[0]} #{number + 1}" for number in range(diversity)]
    elif other:
        steps = interpolate(found[0], parse(other, classifier.labels), count)
        jobs = [(each(steps), [settings.seed] * count)]
        texts = [f"{100 * index / (count - 1):.0f}% {other}" for index in range(count)]
    images = []
    with progress_bar("drawing", settings.steps * len(jobs)) as bar:
        for objective, seeds in jobs:
            pixels = render(
                classifier.model, classifier.preprocess, objective, settings, seeds, lambda _: bar.advance(1)
            )
            images += [enlarged(to_image(picture)) for picture in pixels]
    cells = [(image, text) for image, text in zip(images, texts, strict=True)]
    notes = {"Title": "; ".join(texts), "Comment": f"seed {settings.seed}, {settings.steps} steps"}
    save_png(images[0] if len(images) == 1 else sheet([cells]), output, notes)
    return texts


def _gallery(
    classifier: "Classifier",
    targets: tuple[str, ...],
    output: Path,
    settings: "Settings",
    examples: str | None,
) -> list[str]:
    from inception.explain.examples import find_examples
    from inception.explain.gallery import expand, make_pictures
    from inception.explain.gallery_page import write_gallery
    from inception.explain.render import picture_size
    from inception.runtime.inputs import expand_inputs

    size, _ = picture_size(classifier.model, classifier.preprocess, settings)
    channels = expand(classifier.model, targets, size)
    shown = None
    if examples:
        with progress_bar("finding examples", None) as bar:
            shown = find_examples(classifier, expand_inputs([examples], ()), channels, progress=bar.advance)
    folder = output.with_name(re.sub(r"\.html?$", "", output.name) + "-pictures")
    with progress_bar("drawing", len(channels)) as bar:
        pictures = make_pictures(classifier, channels, folder, settings, lambda n: bar.advance(n, "pictures"))
    details = {
        "Network": classifier.bundle.network,
        "Channels": ", ".join(targets),
        "Picture": f"{size} x {size} pixels, {settings.steps} steps, seed {settings.seed}",
        "Examples": examples or "-",
    }
    layers = dict.fromkeys(item.layer for item in channels)
    title = f"{classifier.bundle.network}: {', '.join(layers)}"
    write_gallery(output, pictures, title=title, details=details, examples=shown)
    return [item.name for item in channels]
