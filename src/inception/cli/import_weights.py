"""`inception import`: somebody else's weights become a bundle."""

from pathlib import Path

import click

from inception.cli.console import print_json, print_table, say
from inception.weights.bundle import save_bundle
from inception.weights.importer import import_weights
from inception.weights.matching import describe
from inception.weights.preprocessing import PreprocessChanges, in_words


@click.command("import", short_help="Make a bundle of somebody else's weights.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--as", "name", required=True, help="Network the weights belong to, e.g. googlenet_5h.")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Bundle to write.")
@click.option("--labels", type=click.Path(path_type=Path), help="Class names, one a line.")
@click.option(
    "--partial",
    is_flag=False,
    flag_value="",
    metavar="[STAGE]",
    help="Accept an incomplete file (complete up to STAGE, if given); the rest gets fresh weights.",
)
@click.option("--source", "tool", help="Tool that wrote the file, where it does not show: timm, slim, …")
@click.option(
    "--background",
    type=click.Choice(["keep", "drop"]),
    help="Outputs that are no class. Default: output 0 of 1001 is dropped, 1008 outputs are kept.",
)
@click.option("--ema", is_flag=True, help="Take the averaged (EMA) weights of the file.")
@click.option("--allow-nonfinite", is_flag=True, help="Accept NaN and infinity among the weights.")
@click.option(
    "--preprocess",
    "named",
    metavar="NAME|FILE",
    help="What the weights were trained with: imagenet, inception, caffe, none, or a JSON or TOML file.",
)
@click.option(
    "--mean", metavar="NUMBERS", help="Mean of each channel, e.g. 0.485,0.456,0.406; above 2: of bytes."
)
@click.option("--std", metavar="NUMBERS", help="Deviation of each channel, e.g. 0.229,0.224,0.225.")
@click.option("--size", metavar="PIXELS", help="Side of the images, or height x width: 224x320.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def import_command(
    file: Path,
    name: str,
    output: Path,
    labels: Path | None,
    partial: str | None,
    tool: str | None,
    background: str | None,
    ema: bool,
    allow_nonfinite: bool,
    named: str | None,
    mean: str | None,
    std: str | None,
    size: str | None,
    as_json: bool,
) -> None:
    """Read FILE into a network and write a bundle.

    FILE comes from PyTorch (.pth, .ckpt, .safetensors), Keras (.h5, .keras, .weights.h5), TensorFlow (a
    checkpoint, or a frozen .pb), Caffe (.caffemodel) or ONNX, whatever its ending. Nothing in it is executed.
    Class names come from --labels, or from FILE's neighbour `<stem>.synsets.txt` or `<stem>.labels.txt`.
    """
    changes = PreprocessChanges(named, mean, std, size)
    bundle, report = import_weights(
        file,
        name,
        labels,
        partial=partial,
        tool=tool,
        background=background,
        preprocess=None if changes == PreprocessChanges() else changes,
        ema=ema,
        allow_nonfinite=allow_nonfinite,
    )
    save_bundle(bundle, output)
    if not report.complete:
        say(f"does not fit: {describe(report, limit=100)}")
    elif report.unexpected:
        say(f"not used: {describe(report, limit=100)}")
    remarks = bundle.provenance.get("remarks", [])
    for remark in remarks:
        say(f"note: {remark}")
    if as_json:
        content = {"bundle": str(output), "network": bundle.network, "classes": len(bundle.labels)}
        content |= {"missing": report.missing, "unexpected": report.unexpected, "remarks": remarks}
        content["preprocess"] = bundle.preprocess.to_dict()
        print_json(content | {key: bundle.provenance[key] for key in ("tool", "format")})
        return
    rows = [
        ("bundle", str(output)),
        ("network", bundle.network),
        ("source", f"{bundle.provenance['tool']} ({bundle.provenance['format']})"),
        ("images", in_words(bundle.preprocess)),
        ("tensors", f"{len(bundle.state_dict)}"),
        ("classes", f"{len(bundle.labels)} ({_first(bundle.labels)})"),
    ]
    print_table(("imported", ""), rows)


def _first(labels: tuple[str, ...], limit: int = 3) -> str:
    return ", ".join([*labels[:limit], *(["…"] if len(labels) > limit else [])])
