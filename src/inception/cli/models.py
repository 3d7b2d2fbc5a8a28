"""`inception models`: the networks there are."""

import click

from inception.cli.console import print_json, print_table
from inception.nets.registry import ARCHITECTURES, list_models


@click.command(short_help="List the networks.")
@click.argument("pattern", default="*")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def models(pattern: str, as_json: bool) -> None:
    """List the networks whose name fits PATTERN (a shell pattern such as 'googlenet*')."""
    names = list_models(pattern)
    if as_json:
        print_json(names)
        return
    print_table(("model", ""), [(name, ARCHITECTURES[name].title) for name in names])
