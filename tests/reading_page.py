"""The pages `docs/reading.md` and `.zh-CN.md`: what the program says of each example in their tables.

Run as a program, it writes the answers into both pages; the test compares them.
"""

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from inception.data.options import ReadOptions
from inception.data.sources import open_dataset
from inception.errors import InceptionError
from inception.nets.registry import build_network

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "docs/reading.md", ROOT / "docs/reading.zh-CN.md")
_BRACES = re.compile(r"\{([^{}]*)\}")
_TABLES = (".csv", ".tsv", ".txt", ".jsonl", ".lst")
_CLASSES = 5


def expanded(pattern: str) -> Iterator[str]:
    """`{a,b}/{1..2}.png` as the four paths it stands for."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, dots, last = match[1].partition("..")
    choices = [str(n) for n in range(int(first), int(last) + 1)] if dots else match[1].split(",")
    for choice in choices:
        yield from expanded(pattern[: match.start()] + choice + pattern[match.end() :])


def _write(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".heic", ".cr2", ".psd"):
        path.write_bytes(b"\0\0\0\x18ftypheic")
        return
    if path.name.lower() in ("thumbs.db", "desktop.ini", "readme.md") or path.suffix == ".pyc":
        path.write_bytes(b"no image")
        return
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    kinds = {".jpg": "JPEG", ".jpeg": "JPEG", ".ppm": "PPM", ".tif": "TIFF", ".webp": "WEBP"}
    Image.fromarray(pixels).save(path, kinds.get(path.suffix.lower(), "PNG"))


def _options(codes: list[str]) -> tuple[list[str], ReadOptions]:
    given = {}
    for code in codes:
        if code.startswith("--"):
            name, _, value = code[2:].partition(" ")
            given[name.replace("-", "_")] = value.strip("'")
    return [code for code in codes if not code.startswith("--")], ReadOptions(**given)


def images_row(codes: list[str], folder: Path) -> tuple[str, str]:
    """What a folder or a table is read as (classes and splits with their counts), and what is said of it."""
    codes, options = _options(codes)
    table = codes[0] if codes[0].lower().endswith(_TABLES) else None
    paths = [f"{letter}.png" for letter in "abcdefgh"] if table else [p for c in codes for p in expanded(c)]
    for number, path in enumerate(paths):
        _write(folder / path, number)
    if table:
        (folder / table).write_text("\n".join(codes[1:]) + "\n", encoding="utf-8")
    try:
        dataset = open_dataset(folder / table if table else folder, options=options)
    except InceptionError as error:
        return "refused", _plain(str(error), folder)
    given = "" if dataset.automatic_split else "; "
    splits = ", ".join(f"{name} {len(dataset.split(name))}" for name in dataset.splits)
    said = [*dataset.notes, *(f"{len(paths)} left out: {why}" for why, paths in dataset.left_out.items())]
    read = f"{', '.join(dataset.labels)}{given}{splits if given else ''}"
    return read, _plain("; ".join(said), folder) or "–"


def weights_row(codes: list[str], folder: Path) -> tuple[str, str]:
    """What a weights file is imported as, and what is said of it; `W` stands for LeNet-5's tensors."""
    from inception.weights.importer import import_weights
    from inception.weights.preprocessing import PreprocessChanges

    torch.manual_seed(0)
    plain = build_network("lenet5", num_classes=_CLASSES).state_dict()
    given = dict(
        code[2:].split(" ", 1) if " " in code else (code[2:], "") for code in codes if code[:2] == "--"
    )
    name, content = (code for code in codes if not code.startswith("--"))
    path, options = folder / name, {"ema": True} if "ema" in given else {}
    labels = folder / "labels.txt" if "labels" in given else None
    if labels:
        labels.write_text(given["labels"].replace(",", "\n"))
    if "preprocess" in given:
        options["preprocess"] = PreprocessChanges(given["preprocess"])
    words = {"W": plain, "torch": torch, "prefixed": lambda p: {p + k: v for k, v in plain.items()}}
    value = eval(content, words)
    path.write_bytes(value) if isinstance(value, bytes) else torch.save(value, path)
    try:
        bundle, _ = import_weights(path, "lenet5", labels, **options)
    except InceptionError as error:
        return "refused", _plain(str(error), folder)
    # What every import says, the page says once.
    remarks = [
        one for one in bundle.provenance.get("remarks", []) if "does not say its preprocessing" not in one
    ]
    return f"{len(bundle.labels)} classes", _plain("; ".join(remarks), folder) or "–"


def _plain(text: str, folder: Path) -> str:
    """The text without the example's folder, as a table's cell can hold it."""
    text = text.replace(f"{folder}/", "").replace(str(folder), "photos")
    return " ".join(text.split()).replace("|", "\\|")


def answered(line: str) -> str:
    """A row of a page with its last two cells as the program has them now; other lines as they are."""
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("\n"))[1:-1]]
    if len(cells) != 4 or "`" not in cells[1]:
        return line
    codes = [code.replace("\\|", "|") for code in re.findall(r"`([^`]+)`", cells[1])]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve() / "photos"
        folder.mkdir()
        weights = codes[0].endswith((".pth", ".pt", ".ckpt", ".tar", ".bin", ".safetensors"))
        read, said = (weights_row if weights else images_row)(codes, folder)
    return f"| {cells[0]} | {cells[1]} | {read} | {said} |"


def main() -> None:
    """Write the answers into both pages."""
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        page.write_text("\n".join(map(answered, lines)) + "\n", encoding="utf-8")
        sys.stdout.write(f"{page.name} written\n")


if __name__ == "__main__":
    main()
