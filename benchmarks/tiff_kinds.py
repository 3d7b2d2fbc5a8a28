"""Every kind of TIFF that tifffile writes, decoded here: right, refused by name, or wrong.

    pip install tifffile imagecodecs
    python benchmarks/tiff_kinds.py [--json FILE]

A cell is a number type x samples x planar or contiguous x strips or tiles x compression x byte order. Each
holds a ramp from dark to bright (in colour: from red to blue), as large as its number type can hold; what is
decoded must be that ramp within three of 255 levels.
"""

import argparse
import io
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from inception.data.decode import decode_image
from inception.errors import ImageError

SIDE = 64
TYPES: dict[str, tuple[str, int]] = {
    "1": ("uint8", 1),
    "2": ("uint8", 2),
    "4": ("uint8", 4),
    "8": ("uint8", 8),
    "12": ("uint16", 12),
    "14": ("uint16", 14),
    "16": ("uint16", 16),
    "32": ("uint32", 32),
    "signed 8": ("int8", 8),
    "signed 16": ("int16", 16),
    "signed 32": ("int32", 32),
    "float16": ("float16", 16),
    "float32": ("float32", 32),
    "float64": ("float64", 64),
}
KINDS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "grey": ("minisblack", 1, {}),
    "grey inverted": ("miniswhite", 1, {}),
    "grey+alpha": ("minisblack", 2, {"extrasamples": ["unassalpha"]}),
    "RGB": ("rgb", 3, {}),
    "RGBA": ("rgb", 4, {"extrasamples": ["unassalpha"]}),
    "palette": ("palette", 1, {}),
    "CMYK": ("separated", 4, {}),
    "YCbCr": ("ycbcr", 3, {}),
    "Lab": ("cielab", 3, {}),
    "five channels": ("minisblack", 5, {}),
}
COMPRESSIONS = (None, "lzw", "deflate", "packbits", "zstd", "lzma", "jpeg", "webp", "jpeg2000")


def ramp() -> np.ndarray:
    """A ramp 0..1 from left to right."""
    return np.tile(np.linspace(0, 1, SIDE), (SIDE, 1))


def samples(kind: str) -> np.ndarray:
    """Values 0..1, SIDE x SIDE x samples."""
    up, full = ramp(), np.ones((SIDE, SIDE))
    down = 1 - up
    planes = {
        "grey": [up],
        "grey inverted": [down],
        "grey+alpha": [up, full],
        "RGB": [down, 0 * up, up],
        "RGBA": [down, 0 * up, up, full],
        "palette": [up],
        "CMYK": [up, full, down, 0 * up],
        "YCbCr": [up, 0 * up + 128 / 255, 0 * up + 128 / 255],
        "Lab": [up, 0 * up, 0 * up],
        "five channels": [up] * 5,
    }[kind]
    return np.stack(planes, -1)


def expected(kind: str, bits: int) -> np.ndarray:
    """The picture that is meant, 0..255, as exact as the depth allows."""
    steps = 2 ** min(bits, 16) - 1
    up = np.rint(ramp() * steps) / steps
    planes = [1 - up, 0 * up, up] if kind in ("RGB", "RGBA", "CMYK") else [up] * 3
    return np.rint(255 * np.stack(planes, -1))


def stored(values: np.ndarray, dtype: str, bits: int) -> np.ndarray:
    """Values 0..1 in the whole range of the type."""
    if dtype.startswith("float"):
        return values.astype(dtype)
    if dtype.startswith("int"):
        return np.rint(values * (2**bits - 1) - 2 ** (bits - 1)).astype(dtype)
    return np.rint(values * (2**bits - 1)).astype(dtype)


def written(
    kind: str, type_name: str, planar: bool, tiled: bool, compression: str | None, order: str, big: bool
) -> bytes | None:
    """The file of a cell, or None where tifffile does not write it."""
    photometric, count, more = KINDS[kind]
    dtype, bits = TYPES[type_name]
    if bits in (12, 14) and order == ">":
        return None  # tifffile packs these in the wrong order, and reads its own file wrongly
    values = stored(samples(kind), dtype, bits)
    if kind == "palette":
        if dtype not in ("uint8", "uint16") or bits > 16:
            return None
        more = {"colormap": np.tile(np.linspace(0, 65535, 2**bits).astype("uint16"), (3, 1))}
    data = np.moveaxis(values, -1, 0) if planar and count > 1 else values
    if count == 1:
        data = values[..., 0]
    options: dict[str, Any] = {"photometric": photometric, "compression": compression, **more}
    if count > 1:
        options["planarconfig"] = "separate" if planar else "contig"
    if bits not in (8, 16, 32, 64):
        options["bitspersample"] = bits
    if tiled:
        options["tile"] = (32, 32)
    else:
        options["rowsperstrip"] = 16
    stream = io.BytesIO()
    try:
        with tifffile.TiffWriter(stream, byteorder=order, bigtiff=big) as writer:
            writer.write(data, metadata=None, **options)
    except Exception:
        return None
    return stream.getvalue()


def judged(data: bytes, kind: str, bits: int) -> tuple[str, str]:
    """Right, refused (by name or as damaged) or wrong, and the words."""
    try:
        picture = np.asarray(decode_image(data, name="it")).astype(int)
    except ImageError as error:
        return ("called damaged" if error.kind in ("corrupt", "truncated") else "refused by name"), str(error)
    worst = int(np.abs(picture - expected(kind, bits)).max())
    tolerance = 40 if kind in ("Lab", "YCbCr") else 5
    return ("right" if worst <= tolerance else "wrong"), f"differs by up to {worst}"


def cells() -> Iterator[tuple[str, str, bool, bool, str | None, str, bool]]:
    """All cells."""
    for kind, type_name in itertools.product(KINDS, TYPES):
        for planar, tiled, order in itertools.product((False, True), (False, True), "<>"):
            for compression in COMPRESSIONS:
                if KINDS[kind][1] == 1 and planar:
                    continue
                yield kind, type_name, planar, tiled, compression, order, False
        for order in "<>":
            yield kind, type_name, False, False, None, order, True


def main() -> None:
    """Print the table of outcomes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for all cells")
    parser.add_argument("--show", default="wrong,called damaged", help="outcomes whose cells are listed")
    arguments = parser.parse_args()
    rows, table, listed = [], defaultdict(Counter), defaultdict(Counter)
    for cell in cells():
        data = written(*cell)
        if data is None:
            continue
        outcome, words = judged(data, cell[0], TYPES[cell[1]][1])
        rows.append(
            dict(zip(("kind", "type", "planar", "tiled", "compression", "order", "big"), cell, strict=True))
            | {"outcome": outcome, "words": words}
        )
        table[cell[0], cell[1]][outcome] += 1
        if outcome in arguments.show.split(","):
            where = f"{cell[0]}, {cell[1]}, {'planar' if cell[2] else 'contiguous'}"
            where += ", BigTIFF" if cell[6] else ""
            listed[outcome][
                f"{where}: {cell[4]}" if cell[4] in ("jpeg", "webp", "jpeg2000", "zstd", "lzma") else where
            ] += 1
    print("all:", dict(Counter(row["outcome"] for row in rows)))
    for (kind, type_name), counts in table.items():
        print(f"{kind:14} {type_name:10} {dict(counts)}")
    for outcome, wheres in listed.items():
        print(f"\n{outcome}")
        for where, count in wheres.items():
            print(f"  {count:3} {where}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
