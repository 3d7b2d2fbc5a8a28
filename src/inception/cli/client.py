"""`inception client`: a running server's answers, in the forms of `inception predict`."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click


@click.command(short_help="Ask a server about images.")
@click.argument("url")
@click.argument("paths", nargs=-1, required=True)
@click.option("--model", help="Name of the model.  [default: the server's first]")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 1000), help="Answers an image.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--auxiliary", is_flag=True, help="With --json: what each auxiliary head answers as well.")
@click.option("--unknown", is_flag=True, help="Answer `unknown` below the bundle's calibrated threshold.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the server's token.")
def client(
    url: str,
    paths: tuple[str, ...],
    model: str | None,
    top: int,
    as_json: bool,
    auxiliary: bool,
    unknown: bool,
    token_file: Path | None,
) -> int:
    """Ask the server at URL about every image in PATHS: files, folders, archives, or `-` for a list of paths
    on standard input, one a line.

    A bad image is reported in its row and does not stop the rest. Exit code 1 when any image failed.
    """
    from inception.cli.console import print_json, print_table
    from inception.cli.serve import read_token
    from inception.serve.client import Client, ClientOptions

    if auxiliary and not as_json:
        raise click.UsageError("--auxiliary needs --json")
    options = ClientOptions(model, top, auxiliary, unknown)
    rows, failed = [], 0
    with closing(Client(url, read_token(token_file))) as connection:
        for answer in _answers(connection, paths, options):
            failed += "error" in answer
            if as_json:
                print_json(answer)
            else:
                rows.append(_row(answer))
    if not as_json:
        print_table(("image", "answer", "probability", "then"), rows)
    return 1 if failed else 0


def _answers(connection: Any, paths: tuple[str, ...], options: Any) -> Iterator[dict[str, Any]]:
    from inception.serve.client import read_images

    for name, content in read_images(paths, sys.stdin):
        if isinstance(content, str):
            yield {"path": name, "error": content}
        else:
            yield {"path": name, **connection.classify(content, options)}


def _row(answer: dict[str, Any]) -> tuple[str, str, str, str]:
    if "error" in answer:
        return (answer["path"], f"error: {answer['error']}", "", "")
    best, *others = answer["top"]
    then = ", ".join(f"{score['label']} {100 * score['probability']:.1f}%" for score in others)
    return (answer["path"], best["label"], f"{100 * best['probability']:.1f}%", then)
