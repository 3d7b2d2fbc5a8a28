"""The options that say how a data set is read, declared once for every command that opens one."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import click

from inception.cli.console import say
from inception.data.dataset import Dataset
from inception.data.options import ReadOptions

FIELDS = dataclasses.fields(ReadOptions)


def read_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option for each field of `ReadOptions`; it gets them as `options`."""

    @functools.wraps(command)
    def collected(**arguments: Any) -> Any:
        given = {item.name: arguments.pop(item.name) for item in FIELDS}
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return command(**arguments, options=ReadOptions(**values))

    wrapped: Callable[..., Any] = collected
    for item in reversed(FIELDS):
        flag = "--" + item.name.replace("_", "-")
        text = item.metadata["help"][:1].upper() + item.metadata["help"][1:] + "."
        if isinstance(item.default, bool):
            wrapped = click.option(flag, item.name, is_flag=True, help=text)(wrapped)
            continue
        kind = click.Choice(item.metadata["choices"]) if item.metadata["choices"] else str
        wrapped = click.option(flag, item.name, type=kind, help=text)(wrapped)
    return wrapped


def say_reading(dataset: Dataset) -> None:
    """Say how a data set was read, and which of its images are not used."""
    for line in (*dataset.notes, *dataset.left_out_lines()):
        say(line)
