"""`inception summary`: a network as the paper prints it, with the true numbers."""

from pathlib import Path
from typing import Any

import click

from inception.cli.console import print_json, print_table, say
from inception.nets.network import Network
from inception.nets.registry import build_network
from inception.nets.summary import summarize
from inception.weights.bundle import load_bundle


@click.command(short_help="Print a network as the paper's Table 1.")
@click.argument("model")
@click.option("--image-size", type=click.IntRange(1, 8192), help="Side in pixels; default the network's own.")
@click.option("--num-classes", type=click.IntRange(0), help="Outputs.")
@click.option("--in-chans", type=click.IntRange(1), help="Input channels.")
@click.option("--width", type=float, help="Multiplier of all channels.")
@click.option("--stem", type=click.Choice(("large", "small")), help="Stem for 224x224 or 32x32 images.")
@click.option("--padding", type=click.Choice(("ceil", "floor", "same")), help="Border rule.")
@click.option(
    "--module", type=click.Choice(("reduced", "naive")), help="Inception module of Figure 2b or 2a."
)
@click.option("--head", type=click.Choice(("average", "fully_connected")), help="What ends the network.")
@click.option("--kernel5", type=click.Choice(("5x5", "3x3", "3x3+3x3")), help="The third branch's view.")
@click.option("--aux/--no-aux", "aux_logits", default=None, help="With or without auxiliary heads.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def summary(model: str, image_size: int | None, as_json: bool, **options: Any) -> None:
    """Print MODEL (a network's name, or a bundle) line by line, measured on the live network."""
    arguments = {name: value for name, value in options.items() if value is not None}
    network = _network(model, arguments, image_size)
    table = summarize(network, image_size)
    if as_json:
        print_json(table.to_dict(), indent=2)
        return
    headings, rows = table.table()
    side = "x".join(map(str, table.image_size))
    print_table(headings, rows, title=f"{table.architecture} at {side}: parameters and multiply-adds")
    for note in table.notes:
        say(note)


def _network(model: str, arguments: dict[str, Any], image_size: int | None) -> Network:
    if Path(model).exists():
        if arguments:
            raise click.UsageError("a bundle's network is as it is: drop " + ", ".join(sorted(arguments)))
        return load_bundle(model).build()
    if image_size is not None and arguments.get("head") == "fully_connected":
        arguments["image_size"] = image_size
    return build_network(model, **arguments)
