"""`inception explain`: where in an image an answer comes from, and whether the map can be trusted."""

import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inception.cli.console import print_json, print_table, progress_bar, say
from inception.errors import DataError, UsageError

if TYPE_CHECKING:
    from inception.explain.attribution import Options, Question
    from inception.explain.pictures import Cell
    from inception.runtime.classifier import Classifier
    from inception.runtime.inputs import Item

MAX_IMAGES = 100
METHOD_NAMES = ("grad-cam", "grad-cam++", "integrated-gradients", "smoothgrad", "occlusion")


@dataclass(frozen=True)
class _Request:
    methods: tuple[str, ...]
    target: str | None
    against: str | None
    head: str
    options: "Options"
    curves: bool
    sanity: bool


@click.command(short_help="Show where in an image an answer comes from.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("paths", metavar="IMAGE…", nargs=-1, required=True)
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="PNG, a row for each image."
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice((*METHOD_NAMES, "all")),
    help="Repeatable. [grad-cam]",
)
@click.option("--target", help="Class to explain: label, part of it, or number. [the answer]")
@click.option("--against", help="Another class: what speaks for the target rather than for it?")
@click.option(
    "--head", default="logits", show_default=True, help="logits, or an auxiliary head: aux1, aux4a."
)
@click.option("--layer", help="Layer of the Grad-CAMs. [the last with a map]")
@click.option("--curves", is_flag=True, help="Deletion and insertion scores beside those of random maps.")
@click.option("--sanity", is_flag=True, help="How much of the map is left when weights are randomised.")
@click.option(
    "--limit", default=10, show_default=True, type=click.IntRange(1, MAX_IMAGES), help="Most images."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each image and method.")
def explain(
    bundle: Path,
    paths: tuple[str, ...],
    output: Path,
    methods: tuple[str, ...],
    target: str | None,
    against: str | None,
    head: str,
    layer: str | None,
    curves: bool,
    sanity: bool,
    limit: int,
    seed: int,
    device: str,
    as_json: bool,
) -> int:
    """Explain BUNDLE's answers for every IMAGE (files, folders, archives, or `-`) as one picture.

    A bad image is reported and does not stop the rest. Exit code 1 when any image failed.
    """
    from inception.explain.attribution import Options
    from inception.explain.gallery import save_png
    from inception.explain.pictures import sheet
    from inception.runtime.inputs import expand_inputs
    from inception.runtime.loading import load
    from inception.weights.bundle import require_one_label

    if output.suffix.lower() != ".png":
        raise UsageError(f"the output is a .png, not '{output.name}'")
    chosen = METHOD_NAMES if "all" in methods else tuple(dict.fromkeys(methods)) or ("grad-cam",)
    request = _Request(chosen, target, against, head, Options(layer=layer, seed=seed), curves, sanity)
    classifier = load(bundle, device)
    require_one_label(classifier.thresholds, "inception explain")
    rows, records, failed = [], [], 0
    items = list(islice(expand_inputs(paths, sys.stdin), limit + 1))
    if len(items) > limit:
        say(f"only the first {limit} images are explained; --limit changes that")
    with progress_bar("explaining", min(len(items), limit) * len(chosen)) as bar:
        for item in items[:limit]:
            try:
                row, found = _explain_one(classifier, item, request, bar)
            except DataError as error:
                say(f"left out {item[0]}: {error}")
                failed += 1
                continue
            rows.append(row)
            records += found
    if not rows:
        raise DataError("no image could be explained")
    try:
        save_png(sheet(rows, ("image", *chosen)), output, {"Title": "inception explain"})
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    _report(records, request, seed, as_json)
    say(f"drawn: {output}")
    return 1 if failed else 0


def _explain_one(
    classifier: "Classifier", item: "Item", request: _Request, bar: Any
) -> "tuple[list[Cell], list[dict[str, Any]]]":
    import torch

    from inception.explain.attribution import SIGNED, attribute
    from inception.explain.layers import activations, borrowed
    from inception.explain.pictures import enlarged, overlay, seen
    from inception.explain.trust import curves, random_scores, randomisation

    name, opener = item
    batch = classifier.preprocess.apply(opener())
    images = classifier.preprocess.normalize(batch[None].to(classifier.device))
    with borrowed(classifier.model), torch.no_grad():
        logits = activations(classifier.model, images, [request.head])[request.head][0].float()
    probabilities = torch.softmax(logits / classifier.bundle.temperature, dim=0)
    question = _question(classifier, request, int(logits.argmax()))
    label, probability = classifier.labels[question.target], float(probabilities[question.target])
    picture = seen(batch, classifier.preprocess)
    versus = "" if question.against is None else f"\nagainst {classifier.labels[question.against]}"
    row = [(enlarged(picture), f"{label}\n{100 * probability:.1f}%  {Path(name).name}{versus}")]
    records = []
    random = (
        random_scores(classifier.model, images[0], question, request.options.seed) if request.curves else None
    )
    for method in request.methods:
        found = attribute(classifier.model, images, question, method, request.options)[0]
        record: dict[str, Any] = {
            "path": name,
            "method": method,
            "head": request.head,
            "target": {"label": label, "index": question.target, "probability": probability},
            "against": None if question.against is None else classifier.labels[question.against],
            "sum": float(found.sum()),
        }
        note = ""
        if random is not None:
            record["trust"] = curves(
                classifier.model, images[0], found, question, request.options.seed
            ).to_dict(random)
            note = "deletion {deletion:.2f} (random {random_deletion:.2f})\n".format(**record["trust"])
            note += "insertion {insertion:.2f} (random {random_insertion:.2f})".format(**record["trust"])
        if request.sanity:
            levels = randomisation(
                classifier.model,
                lambda network: attribute(network, images, question, method, request.options),  # noqa: B023
                seed=request.options.seed,
            )
            record["randomised"] = [{"down_to": stage, "spearman": value} for stage, value in levels]
        row.append((enlarged(overlay(picture, found, method in SIGNED)), note))
        records.append(record)
        bar.advance(1)
    return row, records


def _question(classifier: "Classifier", request: _Request, answer: int) -> "Question":
    from inception.explain.attribution import Question
    from inception.explain.objectives import find_label

    target = answer if request.target is None else find_label(request.target, classifier.labels)
    against = None if request.against is None else find_label(request.against, classifier.labels)
    if against == target:
        raise UsageError("--against must be another class than the target")
    return Question(target, against, request.head)


def _report(records: list[dict[str, Any]], request: _Request, seed: int, as_json: bool) -> None:
    from inception.explain.trust import mean_interval

    if as_json:
        for record in records:
            print_json(record)
    elif request.sanity:
        heads = ["image", "method", *(level["down_to"] for level in records[0]["randomised"])]
        cells = [
            (r["path"], r["method"], *(f"{level['spearman']:.2f}" for level in r["randomised"]))
            for r in records
        ]
        print_table(heads, cells, title="Likeness of the map when weights are randomised down to …")
    if not request.curves or as_json:
        return
    rows = []
    for method in request.methods:
        trusts = [record["trust"] for record in records if record["method"] == method]
        cells_ = [method, str(len(trusts))]
        for kind in ("deletion", "insertion"):
            mean = sum(trust[kind] for trust in trusts) / len(trusts)
            gain, low, high = mean_interval([trust[f"{kind}_gain"] for trust in trusts], seed)
            cells_ += [f"{mean:.3f}", f"{gain:+.3f} ({low:+.3f} to {high:+.3f})"]
        rows.append(cells_)
    heads = ["method", "images", "deletion", "better than random by", "insertion", "better than random by"]
    print_table(heads, rows)
