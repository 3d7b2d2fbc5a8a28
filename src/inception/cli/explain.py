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
    from inception.nets.network import Network
    from inception.runtime.classifier import Classifier
    from inception.runtime.inputs import Item

MAX_IMAGES = 100
PAGE_SUFFIXES = (".html", ".htm")
METHOD_NAMES = ("grad-cam", "grad-cam++", "integrated-gradients", "smoothgrad", "occlusion")


@dataclass(frozen=True)
class _Request:
    methods: tuple[str, ...]
    target: str | None
    against: str | None
    head: str
    precision: str
    options: "Options"
    curves: bool
    sanity: bool


@click.command(short_help="Show where in an image an answer comes from.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("paths", metavar="IMAGE…", nargs=-1, required=True)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="PNG or HTML, a row for each image.",
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
@click.option("--sheet", "whole_sheet", is_flag=True, help="Everything: --method all --curves --sanity.")
@click.option(
    "--limit", default=10, show_default=True, type=click.IntRange(1, MAX_IMAGES), help="Most images."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="float32", show_default=True, help="float32, bfloat16 or auto.")
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
    whole_sheet: bool,
    limit: int,
    seed: int,
    device: str,
    precision: str,
    as_json: bool,
) -> int:
    """Explain BUNDLE's answers for every IMAGE (files, folders, archives, or `-`) as one picture.

    A bad image is reported and does not stop the rest. Exit code 1 when any image failed.
    """
    from inception.explain.attribution import Options
    from inception.explain.render import in_precision
    from inception.runtime.inputs import expand_inputs
    from inception.runtime.loading import load
    from inception.weights.manifest import require_one_label

    if output.suffix.lower() not in (".png", *PAGE_SUFFIXES):
        raise UsageError(f"the output is a .png or an .html, not '{output.name}'")
    chosen = _chosen(("all",) if whole_sheet else methods)
    curves, sanity = curves or whole_sheet, sanity or whole_sheet
    options = Options(layer=layer, seed=seed)
    request = _Request(chosen, target, against, head, precision, options, curves, sanity)
    classifier = load(bundle, device)
    require_one_label(classifier.thresholds, "inception explain")
    network, _ = in_precision(classifier.model, precision, classifier.device)
    rows, records, failed = [], [], 0
    items = list(islice(expand_inputs(paths, sys.stdin), limit + 1))
    if len(items) > limit:
        say(f"only the first {limit} images are explained; --limit changes that")
    with progress_bar("explaining", min(len(items), limit) * len(chosen)) as bar:
        for item in items[:limit]:
            try:
                row, found = _explain_one(classifier, network, item, request, bar)
            except DataError as error:
                say(f"left out {item[0]}: {error}")
                failed += 1
                continue
            rows.append(row)
            records += found
    if not rows:
        raise DataError("no image could be explained")
    try:
        _write(output, rows, records, request, classifier)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    _report(records, request, as_json)
    say(f"drawn: {output}")
    return 1 if failed else 0


def _chosen(methods: tuple[str, ...]) -> tuple[str, ...]:
    return METHOD_NAMES if "all" in methods else tuple(dict.fromkeys(methods)) or ("grad-cam",)


def _explain_one(
    classifier: "Classifier", network: "Network", item: "Item", request: _Request, bar: Any
) -> "tuple[list[Cell], list[dict[str, Any]]]":
    import torch

    from inception.explain.attribution import SIGNED, attribute
    from inception.explain.layers import activations, borrowed
    from inception.explain.pictures import enlarged, overlay, seen
    from inception.explain.trust import curves, random_scores, randomisation
    from inception.runtime.answering import opened

    name, opener = item
    batch = classifier.preprocess.apply(opened(opener, classifier.preprocess))
    images = classifier.preprocess.normalize(batch[None].to(classifier.device))
    with borrowed(network), torch.no_grad():
        logits = activations(network, images, [request.head])[request.head][0].float()
    probabilities = torch.softmax(logits / classifier.bundle.temperature, dim=0)
    question = _question(classifier, request, int(logits.argmax()))
    label, probability = classifier.labels[question.target], float(probabilities[question.target])
    picture = seen(batch, classifier.preprocess)
    versus = "" if question.against is None else f"\nagainst {classifier.labels[question.against]}"
    row = [(enlarged(picture), f"{label}\n{100 * probability:.1f}%  {Path(name).name}{versus}")]
    records = []
    random = random_scores(network, images[0], question, request.options.seed) if request.curves else None
    for method in request.methods:
        found = attribute(network, images, question, method, request.options)[0]
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
            record["trust"] = curves(network, images[0], found, question, request.options.seed).to_dict(
                random
            )
            note = "deletion {deletion:.2f} (random {random_deletion:.2f})\n".format(**record["trust"])
            note += "insertion {insertion:.2f} (random {random_insertion:.2f})".format(**record["trust"])
        if request.sanity:
            levels = randomisation(
                network,
                lambda chosen: attribute(chosen, images, question, method, request.options),  # noqa: B023
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


def _write(
    output: Path,
    rows: "list[list[Cell]]",
    records: list[dict[str, Any]],
    request: _Request,
    classifier: "Classifier",
) -> None:
    from inception.explain.gallery import save_png
    from inception.explain.pictures import sheet
    from inception.explain.sheet import write_sheet

    heads, name = ("image", *request.methods), classifier.bundle.network
    if output.suffix.lower() not in PAGE_SUFFIXES:
        save_png(sheet(rows, heads), output, {"Title": "inception explain"})
        return
    details = {
        "Network": name,
        "Head": request.head,
        "Images": f"{len(rows):,}",
        "Target": request.target or "the answer for each image",
        "Against": request.against or "-",
        "Seed": f"{request.options.seed}, {request.precision}",
    }
    title = f"{name}: attribution"
    write_sheet(output, rows, heads, records, title=title, details=details, seed=request.options.seed)


def _report(records: list[dict[str, Any]], request: _Request, as_json: bool) -> None:
    from inception.explain.sheet import gain_text, random_means, summarize

    if as_json:
        for record in records:
            print_json(record)
        return
    if request.sanity:
        heads = ["image", "method", *(level["down_to"] for level in records[0]["randomised"])]
        cells = [
            (r["path"], r["method"], *(f"{level['spearman']:.2f}" for level in r["randomised"]))
            for r in records
        ]
        print_table(heads, cells, title="Likeness of the map when weights are randomised down to …")
    if not request.curves:
        return
    rows = [
        (
            found.method,
            str(found.images),
            f"{found.deletion:.3f}",
            gain_text(found.deletion_gain),
            f"{found.insertion:.3f}",
            gain_text(found.insertion_gain),
        )
        for found in summarize(records, request.options.seed)
    ]
    deletion, insertion = random_means(records)
    rows.append(("random map", rows[0][1], f"{deletion:.3f}", "", f"{insertion:.3f}", ""))
    heads = ["method", "images", "deletion", "better than random by", "insertion", "better than random by"]
    print_table(heads, rows)
