"""`inception import`: somebody else's weights become a bundle."""

from pathlib import Path

import click

from inception.cli.console import print_json, print_table, say
from inception.weights.bundle import save_bundle
from inception.weights.importer import describe, import_weights


@click.command("import", short_help="Make a bundle of somebody else's weights.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--as", "name", required=True, help="Network the weights belong to, e.g. googlenet_5h.")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Bundle to write.")
@click.option("--labels", type=click.Path(path_type=Path), help="Class names, one a line.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def import_command(file: Path, name: str, output: Path, labels: Path | None, as_json: bool) -> None:
    """Read FILE (.safetensors, .pth or .pt) into a network and write a bundle.

    Nothing in the file is executed. Class names come from --labels, or from FILE's neighbour
    `<stem>.synsets.txt` or `<stem>.labels.txt`.
    """
    bundle, report = import_weights(file, name, labels)
    save_bundle(bundle, output)
    if report.unexpected:
        say(f"not used: {describe(report, limit=100)}")
    if as_json:
        content = {"bundle": str(output), "network": bundle.network, "classes": len(bundle.labels)}
        print_json(content | {"missing": report.missing, "unexpected": report.unexpected})
        return
    rows = [
        ("bundle", str(output)),
        ("network", bundle.network),
        ("tensors", f"{len(bundle.state_dict)}"),
        ("classes", f"{len(bundle.labels)} ({', '.join(bundle.labels[1:4])}, …)"),
    ]
    print_table(("imported", ""), rows)
