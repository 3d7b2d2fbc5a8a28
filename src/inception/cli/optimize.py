"""`inception optimize`: a bundle made fast on this machine."""

from pathlib import Path

import click

from inception.cli.console import print_json, print_table, say


@click.command(short_help="Make a bundle fast on this machine.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the result.")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "float32", "bfloat16", "int8"]),
    help="auto: the fastest that loses at most half a point of top-1.",
)
@click.option("--calibrate", metavar="DATA", help="Images like those it will see; int8 needs them.")
@click.option("--validate", metavar="DATA", help="Labelled images to measure accuracy on; else some of DATA.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1, 1024), help="Images at a time.")
@click.option("--threads", default=0, type=click.IntRange(0, 1024), help="0: as many as measured best.")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(["native", "openvino", "onnxruntime", "torch", "inductor"]),
    help="Try only these (repeat it); all but inductor, which compiles for minutes.",
)
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(3, 1000))
@click.option("--data-root", type=click.Path(path_type=Path), help="Where named sets are kept.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as one JSON object.")
def optimize(
    bundle: Path,
    output: Path,
    precision: str,
    calibrate: str | None,
    validate: str | None,
    batch: int,
    threads: int,
    engines: tuple[str, ...],
    rounds: int,
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Try every engine on BUNDLE, measured in turns on this machine, and keep the fastest that answers alike.

    The result is a bundle with a plan; `predict`, `evaluate` and `inception.load` follow it.
    """
    from inception.runtime.optimize import DEFAULT_ENGINES, Request, optimize_bundle

    request = Request(
        precision,
        calibrate,
        validate,
        batch,
        threads,
        engines or DEFAULT_ENGINES,  # type: ignore[arg-type]
        rounds,
        data_root,
    )
    plan = optimize_bundle(bundle, output, request, say)
    if as_json:
        print_json({"engine": plan.engine, "precision": plan.precision, **vars(plan)})
        return
    rows = [
        (
            row["engine"],
            row["precision"],
            f"{row['median_ms']:.2f}",
            f"{row['quartile_low_ms']:.2f} to {row['quartile_high_ms']:.2f}",
            f"{row['images_per_s']:.1f}",
            f"{row['deviation']:.1e}",
        )
        for row in plan.measured
    ]
    title = f"batch {plan.batch}, {plan.machine['processor']}, load {plan.machine['load']}"
    print_table(
        ("engine", "precision", "median ms", "quartiles", "images/s", "largest difference"), rows, title
    )
    if "top1_drop" in plan.judged:
        found, before = plan.judged["top1"], plan.judged["top1_float32"]
        say(f"top-1 {100 * found:.2f}% ({100 * before:.2f}% in float32): {plan.judged['source']}")
    say(f"{output}: {plan.engine}, {plan.precision}, {plan.threads} threads")
