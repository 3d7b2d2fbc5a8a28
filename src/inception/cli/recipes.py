"""`inception recipes`: the named sets of training options, and where each number is from."""

from typing import Any

import click

from inception.cli.console import print_json, print_table, say
from inception.train.recipes import MANY_IMAGES, MODERN, RECIPES, SMALL_IMAGE, recipe_named

_SHOWN = ("optimizer", "learning_rate", "schedule", "label_smoothing", "augment")


@click.command(short_help="List the training recipes.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recipes(name: str | None, as_json: bool) -> None:
    """List the recipes of `train --recipe`; with NAME, every value of one and where it is from."""
    if name == "modern":
        raise click.UsageError(f"modern is no recipe of its own: it takes {MODERN}")
    if name is not None:
        recipe = recipe_named(name)
        if as_json:
            print_json(recipe.to_dict(), indent=2)
            return
        lines = [(option, str(value.value), value.source) for option, value in recipe.values.items()]
        print_table(
            ("option", "value", "from"), lines, title=f"{name}, version {recipe.version}: {recipe.source}"
        )
        _explain()
        return
    if as_json:
        print_json([recipe.to_dict() for recipe in RECIPES.values()], indent=2)
        return

    def shown(values: Any, option: str) -> str:
        return str(values[option].value) if option in values else ""

    rows = [
        (each.name, str(each.version), each.purpose, *(shown(each.values, option) for option in _SHOWN))
        for each in RECIPES.values()
    ]
    print_table(("recipe", "version", "for", *_SHOWN), rows)
    say(f"modern, the default, takes {MODERN}")
    _explain()


def _explain() -> None:
    say(
        f"few: below {MANY_IMAGES:,} training images, many: from there on; "
        f"small: images up to {SMALL_IMAGE} pixels; normalized: networks with batch normalisation"
    )
