"""`inception weights`: the catalogue of published weights, and fetching from it."""

from dataclasses import asdict
from pathlib import Path

import click

from inception.cli.console import print_json, print_table, progress_bar, say
from inception.weights.bundle import save_bundle
from inception.weights.catalogue import CATALOGUE, Entry, expected_preprocess, find_entry
from inception.weights.fetch import published_bundle, weights_folder


@click.group("weights", short_help="List and fetch published weights.")
def weights() -> None:
    """Published weights: which there are, and how to get them as bundles."""


@weights.command("list", short_help="List the published weights.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, with everything known.")
def list_command(as_json: bool) -> None:
    """List what can be fetched: network, accuracy, checksum, licence."""
    for entry in CATALOGUE.values() if as_json else ():
        print_json(
            {**asdict(entry), "preprocess": expected_preprocess(entry).to_dict(), "cached": _cached(entry)}
        )
    if as_json:
        return
    rows = [
        (
            entry.name,
            entry.network,
            _percent(entry.top1),
            _percent(entry.top5),
            entry.checksum.partition(":")[0] if entry.checksum else "none",
            entry.license,
            "yes" if _cached(entry) else "",
        )
        for entry in CATALOGUE.values()
    ]
    print_table(("name", "network", "top-1", "top-5", "checksum", "licence", "cached"), rows)
    say("Accuracy: as published, ImageNet validation, one crop; sources in --json.")


@weights.command("get", short_help="Fetch published weights and make a bundle of them.")
@click.argument("name")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Bundle to write.")
@click.option("--mirror", help="Fetch MIRROR/<file name> instead. [env: INCEPTION_WEIGHTS_URL_PREFIX]")
@click.option("--allow-unverified", is_flag=True, help="Fetch also what has no published checksum.")
@click.option("--offline", is_flag=True, help="Take it from the cache or fail.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def get_command(
    name: str, output: Path, mirror: str | None, allow_unverified: bool, offline: bool, as_json: bool
) -> None:
    """Fetch NAME (of `inception weights list`) and write it as a bundle.

    The file is kept in $INCEPTION_CACHE or ~/.cache/inception; a broken download continues where it ended,
    and a wrong one is never used.
    """
    entry = find_entry(name)
    with progress_bar(entry.file, None) as bar:
        done = 0

        def progress(there: int, expected: int | None) -> None:
            nonlocal done
            if expected is not None:
                bar.set_total(expected)
            bar.advance(there - done)
            done = there

        bundle = published_bundle(
            name, mirror=mirror, allow_unverified=allow_unverified, offline=offline, progress=progress
        )
    save_bundle(bundle, output)
    sha256 = bundle.provenance["downloaded_sha256"]
    if entry.checksum is None:
        say(f"nobody publishes a checksum of {name}; what came has the SHA-256 {sha256}")
    for remark in (*bundle.provenance.get("remarks", ()), entry.note):
        if remark:
            say(f"note: {remark}")
    content = {
        "bundle": str(output),
        "network": bundle.network,
        "classes": len(bundle.labels),
        "sha256": sha256,
        "verified": entry.checksum is not None,
    }
    if as_json:
        print_json(content)
    else:
        print_table(("fetched", ""), [(key, str(value)) for key, value in content.items()])


def _cached(entry: Entry) -> bool:
    return (weights_folder() / entry.name / entry.file).is_file()


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}%"
