"""Reading the verified numbers in the shared material."""

import csv
import json
from pathlib import Path
from typing import Any


def read_table(shared: Path, name: str) -> list[dict[str, str]]:
    """The rows of `facts/<name>.csv`."""
    with (shared / "facts" / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def read_json(shared: Path, name: str) -> Any:
    """The contents of `facts/<name>.json`."""
    return json.loads((shared / "facts" / f"{name}.json").read_text())
