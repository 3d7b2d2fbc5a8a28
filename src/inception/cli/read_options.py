"""The options that say how a data set is read, declared once for every command that opens one."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import click

from inception.data.options import ReadOptions

FIELDS = dataclasses.fields(ReadOptions)


def read_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option for each field of `ReadOptions`; it gets them as `options`."""

    @functools.wraps(command)
    def collected(**arguments: Any) -> Any:
        values = {item.name: arguments.pop(item.name) or "" for item in FIELDS}
        return command(**arguments, options=ReadOptions(**values))

    wrapped: Callable[..., Any] = collected
    for item in reversed(FIELDS):
        kind = click.Choice(item.metadata["choices"]) if item.metadata["choices"] else str
        flag = "--" + item.name.replace("_", "-")
        text = item.metadata["help"][:1].upper() + item.metadata["help"][1:] + "."
        wrapped = click.option(flag, item.name, type=kind, help=text)(wrapped)
    return wrapped
