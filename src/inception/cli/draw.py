"""`inception draw`: a network, one of its modules, or the heads of several, as SVG."""

from pathlib import Path
from typing import Any, cast

import click

from inception.cli.console import say
from inception.errors import UsageError
from inception.files import atomic_write_text
from inception.nets.registry import build_network
from inception.study.diagram.words import Language


@click.command(short_help="Draw a network or a module as SVG.")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="SVG file to write.")
@click.option("--block", help="One stage, such as inception4a, with every layer in it.")
@click.option("--heads", is_flag=True, help="What ends the networks, side by side.")
@click.option(
    "--style",
    type=click.Choice(("slide", "full")),
    default="slide",
    show_default=True,
    help="A network as cards in rows, or with every layer.",
)
@click.option("--language", type=click.Choice(("en", "zh")), default="en", show_default=True)
@click.option("--module", type=click.Choice(("reduced", "naive")), help="As in summary.")
@click.option("--kernel5", type=click.Choice(("5x5", "3x3", "3x3+3x3")), help="As in summary.")
@click.option("--head", type=click.Choice(("average", "fully_connected")), help="As in summary.")
@click.option("--aux/--no-aux", "aux_logits", default=None, help="With or without auxiliary heads.")
def draw(
    names: tuple[str, ...],
    output: Path,
    block: str | None,
    heads: bool,
    style: str,
    language: str,
    **options: Any,
) -> None:
    """Draw the live network NAME to an SVG file; with --heads several."""
    import torch

    from inception.study.diagram.block import draw_block
    from inception.study.diagram.heads import draw_heads
    from inception.study.diagram.network import draw_network

    if len(names) > 1 and not heads:
        raise UsageError("only --heads draws several networks side by side; name one")
    if heads and block:
        raise UsageError("--heads and --block are two pictures: ask for one of them")
    arguments = {name: value for name, value in options.items() if value is not None}
    with torch.device("meta"):  # a picture needs no weights
        networks = [build_network(name, **arguments) for name in names]
    words = cast(Language, language)
    if heads:
        svg = draw_heads(networks, words)
    elif block:
        svg = draw_block(networks[0], block, words)
    else:
        svg = draw_network(networks[0], words, full=style == "full")
    try:
        atomic_write_text(output, svg)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    say(f"drawn: {output}")
