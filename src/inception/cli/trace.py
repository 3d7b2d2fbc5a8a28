"""`inception trace`: what the branches of every module give to an answer, and what the stages see."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inception.cli.console import print_json, print_table, say
from inception.errors import UsageError

if TYPE_CHECKING:
    from inception.explain.trace import ModuleTrace


@click.command(short_help="Show what each branch gives to an answer.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--target", help="Class to trace: label, part of it, or number. [the answer]")
@click.option("--against", help="Another class: what speaks for the target rather than for it?")
@click.option(
    "--head", default="logits", show_default=True, help="logits, or an auxiliary head: aux1, aux4a."
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="PNG of the branches' shares.")
@click.option(
    "--maps", type=click.Path(path_type=Path), help="PNG of the strongest feature maps of every stage."
)
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def trace(
    bundle: Path,
    image: Path,
    target: str | None,
    against: str | None,
    head: str,
    output: Path | None,
    maps: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Trace BUNDLE's answer for IMAGE through the branches of its modules.

    For each branch: its share of the module's activation, and of activation x gradient, the first-order
    measure of what it does for the answer.
    """
    from inception.explain.attribution import Question
    from inception.explain.objectives import find_label
    from inception.explain.trace import branch_picture, map_picture, trace_branches
    from inception.runtime.classifier import open_image
    from inception.runtime.loading import load

    for path in (output, maps):
        if path is not None and path.suffix.lower() != ".png":
            raise UsageError(f"pictures are written as .png, not '{path.name}'")
    classifier = load(bundle, device)
    batch = classifier.preprocess.apply(open_image(image, classifier.preprocess.bits))
    inputs = classifier.preprocess.normalize(batch[None].to(classifier.device))
    answer = classifier.probabilities(batch[None])[0]
    index = int(answer.argmax()) if target is None else find_label(target, classifier.labels)
    other = None if against is None else find_label(against, classifier.labels)
    traces = trace_branches(classifier.model, inputs[0], Question(index, other, head))
    title = f"{classifier.labels[index]} {100 * float(answer[index]):.1f}%"
    if output and not traces:
        raise UsageError(f"{classifier.bundle.network} has no branches to draw; --maps shows its stages")
    if output:
        _save(branch_picture(traces, f"{title}, {image.name}"), output)
    if maps:
        _save(map_picture(classifier.model, inputs[0]), maps)
    if as_json:
        print_json(_as_dict(str(image), classifier.labels[index], index, float(answer[index]), traces))
    elif traces:
        _print(traces, title)
    else:
        say(f"{classifier.bundle.network} has no branches; --maps FILE.png shows its stages")


def _save(picture: Any, path: Path) -> None:
    from inception.explain.gallery import save_png

    try:
        save_png(picture, path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    say(f"drawn: {path}")


def _as_dict(
    path: str, label: str, index: int, probability: float, traces: "tuple[ModuleTrace, ...]"
) -> dict[str, Any]:
    from inception.explain.trace import share_by_kind

    kinds = share_by_kind(traces).items()
    return {
        "path": path,
        "target": {"label": label, "index": index, "probability": probability},
        "modules": [trace.to_dict() for trace in traces],
        "by_kind": {kind: {"activation": pair[0], "gradient": pair[1]} for kind, pair in kinds},
    }


def _print(traces: "tuple[ModuleTrace, ...]", title: str) -> None:
    from inception.explain.trace import share_by_kind

    rows = [
        (
            trace.module,
            share.branch,
            share.kind,
            str(share.channels),
            f"{100 * share.activation:.1f}%",
            f"{100 * share.gradient:.1f}%",
            f"{share.contribution:+.3f}",
        )
        for trace in traces
        for share in trace.shares
    ]
    heads = ("module", "branch", "sees", "channels", "activation", "activation x gradient", "speaks for it")
    print_table(heads, rows, title=title)
    kinds = [
        (kind, f"{100 * pair[0]:.1f}%", f"{100 * pair[1]:.1f}%")
        for kind, pair in share_by_kind(traces).items()
    ]
    print_table(("sees", "activation", "activation x gradient"), kinds, title="Mean over the modules")
