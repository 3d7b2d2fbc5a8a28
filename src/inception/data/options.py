"""How a data set is read where its own files leave it open."""

from dataclasses import dataclass, field
from typing import Any


def _option(text: str, choices: tuple[str, ...] = ()) -> Any:
    return field(default="", metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class ReadOptions:
    """What the user says about the layout of a data set. An empty text: taken from the data."""

    classes: str = _option("folders within class folders: top or leaf folders name classes", ("top", "leaf"))
    label_from: str = _option("regular expression whose first group, in a file's path, is its class")
    path_column: str = _option("column of a table that names the images")
    label_column: str = _option("column of a table that names the classes")
    split_column: str = _option("column of a table that names the split; none ignores such columns")
    label_separator: str = _option("what separates labels in a table's cell; none: each cell is one label")
    val_fold: str = _option("fold of a table's fold column that is val")
    test_fold: str = _option("fold of a table's fold column that is test")
    encoding: str = _option("encoding of a table's text; default UTF-8, or UTF-16 by its mark")
    allow_left_out: bool = field(
        default=False,
        metadata={"help": "go on where more than a tenth of the images is left out", "choices": ()},
    )
    root: str = _option("folder that a table's paths are relative to; default the table's own")
