"""`inception compare`: what networks cost, side by side."""

from dataclasses import asdict

import click

from inception.cli.console import print_json, print_table, say


@click.command(short_help="Compare networks by what they cost.")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@click.option(
    "--image-size", type=click.IntRange(1, 8192), help="Side in pixels; default each network's own."
)
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1, 10_000), help="Timed passes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def compare(names: tuple[str, ...], image_size: int | None, rounds: int, as_json: bool) -> None:
    """Parameters, multiply-adds, memory and measured time of the networks NAME, for one image in float32.

    Auxiliary heads are left out. The networks take turns, and the time is the median over the rounds.
    """
    import torch

    from inception.study.compare import compare as measure

    costs = measure(names, rounds, image_size)
    if as_json:
        print_json([asdict(cost) for cost in costs])
        return
    rows = [
        (
            cost.model,
            str(cost.image_size),
            f"{cost.parameters:,}",
            f"{cost.multiply_adds / 1e6:,.1f}M",
            f"{cost.weight_mib:,.1f}",
            f"{cost.activation_mib:,.1f}",
            f"{cost.median_ms:,.1f}",
        )
        for cost in costs
    ]
    heads = ("model", "image", "parameters", "ops", "weights MiB", "activations MiB", "ms")
    print_table(heads, rows)
    say(f"batch 1, float32, {torch.get_num_threads()} threads, median of {rounds} rounds in turns")
