"""From JPEG bytes to the five best labels, on one core: an optimised bundle against torchvision's pipeline.

    inception optimize googlenet_5h -o fast --precision bfloat16
    python benchmarks/jpeg_to_top5.py fast --exact googlenet_5h --photos imagenet-samples.zip --json top5.json

torchvision's pipeline is the documented one: Pillow, Resize(256), CenterCrop(224), ToTensor, Normalize, its
GoogLeNet in eager float32, one image at a time, softmax, top-5; its weights are random, which does not change
its speed. The process is pinned to one core; the two take turns within each round. Speed is measured on the
photographs of 500 x 375 and 375 x 500, agreement on all of them: how often the optimised bundle's best label
is that of --exact in PyTorch, float32.
"""

import argparse
import io
import json
import os
import statistics
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from inception.runtime.loading import load
from inception.runtime.timing import machine

PHOTO, BATCH = (500, 375), 16
OURS, OURS_BATCHED, THEIRS = (
    "inception, one by one",
    f"inception, {BATCH} at a time",
    "torchvision, one by one",
)


def read_photos(paths: list[Path]) -> list[bytes]:
    """The JPEG files of several zips."""
    files = []
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg"))]
            files += [archive.read(name) for name in names]
    return files


def torchvision_pipeline() -> Callable[[bytes], object]:
    """torchvision's documented way from a file to the five best classes."""
    import torchvision
    from torchvision import transforms

    model = torchvision.models.googlenet(init_weights=False).eval()
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    steps += [transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    transform = transforms.Compose(steps)

    def run(data: bytes) -> object:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        with torch.inference_mode():
            return model(transform(image)[None]).softmax(1).topk(5)

    return run


def measure(works: dict[str, Callable[[], object]], images: int, rounds: int) -> list[dict]:
    """Milliseconds an image of each, in turns; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if turn:
                times[name].append(1000 * (time.perf_counter() - started) / images)
    return [
        {
            "pipeline": name,
            "ms_per_image": statistics.median(values),
            "quartile_low": statistics.quantiles(values, n=4)[0],
            "quartile_high": statistics.quantiles(values, n=4)[2],
            "speedup": statistics.median(a / b for a, b in zip(times[THEIRS], values, strict=True)),
            "rounds": rounds,
        }
        for name, values in times.items()
    ]


def print_rows(rows: list[dict]) -> None:
    """One table."""
    table = Table(title=f"JPEG bytes to top-5, one core, {rows[0]['rounds']} rounds in turns")
    for heading in ("pipeline", "ms an image", "quartiles", "times torchvision's speed"):
        table.add_column(heading, justify="left" if heading == "pipeline" else "right")
    for row in rows:
        spread = f"{row['quartile_low']:.2f} to {row['quartile_high']:.2f}"
        table.add_row(row["pipeline"], f"{row['ms_per_image']:.2f}", spread, f"{row['speedup']:.2f}")
    Console(width=110).print(table)


def main() -> None:
    """Measure, print the table and the agreement, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="from `inception optimize`")
    parser.add_argument("--exact", type=Path, required=True, help="the bundle it was made of")
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="zips with JPEG files")
    parser.add_argument("--images", type=int, default=16, help="timed in a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    torch.set_num_threads(1)
    files = read_photos(options.photos)
    timed = [data for data in files if Image.open(io.BytesIO(data)).size in (PHOTO, PHOTO[::-1])]
    timed = timed[: options.images]
    if not timed:
        sys.exit("there is no photograph of 500 x 375 among them")
    fast, theirs = load(options.bundle), torchvision_pipeline()
    works = {
        OURS: lambda: [fast.predict(data) for data in timed],
        OURS_BATCHED: lambda: list(fast.predict(timed)),
        THEIRS: lambda: [theirs(data) for data in timed],
    }
    rows = measure(works, len(timed), options.rounds)
    print_rows(rows)
    exact = load(options.exact, "cpu", "float32")
    expected = exact.predict(files)
    agreed = sum(a.label == b.label for a, b in zip(fast.predict(files), expected, strict=True))
    print(f"the same best label for {agreed} of {len(files)} photographs: {100 * agreed / len(files):.2f} %")
    result = {"rows": rows, "photographs": len(files), "agreed": agreed, "machine": machine()}
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
