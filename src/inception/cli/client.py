"""`inception client`: a running server's answers, in the forms of `inception predict`."""

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inception.cli.explain import METHOD_NAMES

if TYPE_CHECKING:
    from inception.serve.client import Client, ClientOptions


@dataclass(frozen=True)
class _Why:
    """The explanations wanted: a .png for one image, or a folder."""

    output: Path
    method: str
    target: str | None

    @property
    def single(self) -> bool:
        """Whether `output` is one picture."""
        return self.output.suffix.lower() == ".png"


@click.command(short_help="Ask a server about images.")
@click.argument("url")
@click.argument("paths", nargs=-1, required=True)
@click.option("--model", help="Name of the model.  [default: the server's first]")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 1000), help="Answers an image.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--auxiliary", is_flag=True, help="With --json: what each auxiliary head answers as well.")
@click.option("--unknown", is_flag=True, help="Answer `unknown` below the bundle's calibrated threshold.")
@click.option(
    "--explain",
    "output",
    type=click.Path(path_type=Path),
    help="Also draw why: a .png for one image, or a folder for many.",
)
@click.option("--method", type=click.Choice(METHOD_NAMES), help="With --explain.  [default: grad-cam]")
@click.option(
    "--target", help="With --explain: class, by label, part of it, or number.  [default: the answer]"
)
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the server's token.")
def client(
    url: str,
    paths: tuple[str, ...],
    model: str | None,
    top: int,
    as_json: bool,
    auxiliary: bool,
    unknown: bool,
    output: Path | None,
    method: str | None,
    target: str | None,
    token_file: Path | None,
) -> int:
    """Ask the server at URL about every image in PATHS: files, folders, shards, .zip or .tar archives,
    .parquet files, or `-` for a list of paths on standard input, one a line.

    A bad image is reported in its row and does not stop the rest. Exit code 1 when any image failed.
    """
    from inception.cli.console import print_json, print_table
    from inception.cli.serve import read_token
    from inception.serve.client import Client, ClientOptions

    if auxiliary and not as_json:
        raise click.UsageError("--auxiliary needs --json")
    if output is None and (method or target is not None):
        raise click.UsageError("--method and --target need --explain")
    why = None if output is None else _Why(output, method or "grad-cam", target)
    options = ClientOptions(model, top, auxiliary, unknown)
    rows, failed = [], 0
    with closing(Client(url, read_token(token_file))) as connection:
        for answer in _answers(connection, paths, options, why):
            failed += "error" in answer
            if as_json:
                print_json(answer)
            else:
                rows.append(_row(answer))
    if not as_json:
        heads = ("image", "answer", "probability", "then", *(() if why is None else ("why",)))
        print_table(heads, [row[: len(heads)] for row in rows])
    return 1 if failed else 0


def _answers(
    connection: "Client", paths: tuple[str, ...], options: "ClientOptions", why: _Why | None
) -> Iterator[dict[str, Any]]:
    from inception.serve.client import read_images

    images = read_images(paths, sys.stdin)
    target = None if why is None else _prepare(connection, why, options.model)
    if why is not None and why.single:
        first = list(islice(images, 2))
        if len(first) > 1:
            raise click.UsageError(f"{why.output} holds the explanation of one image: name a folder for many")
        images = iter(first)
    for number, (name, content) in enumerate(images, 1):
        if isinstance(content, str):
            yield {"path": name, "error": content}
            continue
        answer = {"path": name, **connection.classify(content, options)}
        if why is not None and "error" not in answer:
            answer["explanation"] = _explain(connection, why, target, options.model, content, number, name)
        yield answer


def _prepare(connection: "Client", why: _Why, model: str | None) -> int | None:
    """The position of the class to explain; the folder is made."""
    from inception.errors import UsageError

    try:
        folder = why.output.parent if why.single else why.output
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {why.output}: {error.strerror or error}") from error
    if why.target is None:
        return None
    from inception.explain.objectives import find_label

    return find_label(why.target, connection.labels(model))


def _explain(
    connection: "Client",
    why: _Why,
    target: int | None,
    model: str | None,
    content: bytes,
    number: int,
    name: str,
) -> dict[str, Any]:
    from inception.files import atomic_write_bytes

    found = connection.explain(content, why.method, target, model)
    # Files of several folders may share a name.
    path = why.output if why.single else why.output / f"{number:04}-{Path(name).stem}.png"
    atomic_write_bytes(path, found.picture)
    return {**found.values, "picture": str(path)}


def _row(answer: dict[str, Any]) -> tuple[str, ...]:
    if "error" in answer:
        return (answer["path"], f"error: {answer['error']}", "", "", "")
    best, *others = answer["top"]
    then = ", ".join(f"{score['label']} {100 * score['probability']:.1f}%" for score in others)
    picture = answer.get("explanation", {}).get("picture", "")
    return (answer["path"], best["label"], f"{100 * best['probability']:.1f}%", then, picture)
