"""Loading speed: JPEG files of 500 x 375 to normalised training tensors of 224 x 224, images a second.

    python benchmarks/loading.py --json loading.json
    python benchmarks/loading.py --photos imagenet-samples.zip
    python benchmarks/loading.py --small

All make the same views: a random cut of 8 to 100 % of the area, aspect 3/4 to 4/3, bilinear, mirrored as
often as not; with --colour also brightness, contrast and colour changed by up to 40 %. All end in float32
batches of 32. They take turns within each round, so that a disturbance hits all alike. "One core" pins the
process to one core and loads in it (ours in one thread); "two cores" gives torchvision and timm two worker
processes and ours two threads. `ratio` is the median over the rounds of our speed divided by theirs.

"torchvision, Pillow" is what its reference scripts do; its own decoder with v2 transforms is the faster way;
timm is `create_transform`, `create_dataset` and `create_loader` with `fast_collate`: bytes up to the
batch. The photographs are crops of scikit-learn's two sample images, half of them with full chroma (as most
files of ImageNet have), or with --photos those of that size in an archive. --small measures 32 x 32 images
instead, from the second epoch on.
"""

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inception.data import photo as photo_module
from inception.data.augment import AUGMENTS, Augment
from inception.data.loader import Loader
from inception.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from inception.data.sources import open_dataset
from inception.runtime.timing import machine

BATCH, PHOTO, SIDE, SMALL_SIDE = 32, (500, 375), 224, 32
OURS = "inception"
Epoch = Callable[[], Iterable[Tensor]]


def photographs(count: int) -> Iterator[bytes]:
    """JPEG files of 500 x 375: random crops of two photographs, half of them with full chroma."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(picture) for picture in load_sample_images().images]
    for index in range(count):
        left, top = rng.uniform(0, 140), rng.uniform(0, 52)
        picture = pictures[index % 2].resize(
            PHOTO, Image.Resampling.LANCZOS, (left, top, left + 500, top + 375)
        )
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=92, subsampling="4:4:4" if index % 4 < 2 else "4:2:0")
        yield buffer.getvalue()


def archived(path: Path) -> Iterator[bytes]:
    """The JPEG files of 500 x 375 or 375 x 500 in a zip."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.lower().endswith((".jpg", ".jpeg")):
                data = archive.read(name)
                with Image.open(io.BytesIO(data)) as image:
                    if image.size in (PHOTO, PHOTO[::-1]):
                        yield data


def lay_out(files: list[bytes], folder: Path, copies: int) -> None:
    """Two class folders under `train`, each file `copies` times; two more in `val` keep the rest in train."""
    for split, times in (("train", copies), ("val", 1)):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
        chosen = files if split == "train" else files[:2]
        for number in range(len(chosen) * times):
            data = chosen[number % len(chosen)]
            (folder / split / "ab"[number % 2] / f"{number:05}.jpg").write_bytes(data)


def our_epoch(folder: Path, augment: Augment, workers: int, keep: str, fast: bool) -> Epoch:
    """Our loader; `keep` photographs in "memory", on "disk", or decode each time; `fast`: with simplejpeg."""
    dataset = open_dataset(folder)
    loader = Loader(
        dataset,
        dataset.split("train"),
        workers,
        cache_bytes=2**32 if keep == "memory" else 0,
        cache_folder=folder if keep == "disk" else None,
    )
    preprocess = Preprocess(height=SIDE, width=SIDE)
    epochs = iter(range(10**6))
    decoder = photo_module.FAST

    def run() -> Iterator[Tensor]:
        photo_module.FAST = decoder if fast else None
        try:
            for batch in loader.training_batches(preprocess, augment, BATCH, 0, next(epochs)):
                yield preprocess.normalize(batch.images)
        finally:
            photo_module.FAST = decoder

    return run


def torchvision_epoch(folder: Path, colour: float, workers: int) -> Epoch:
    """torchvision's reference way: ImageFolder, Pillow, transforms, DataLoader."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip()]
    steps += [transforms.ColorJitter(colour, colour, colour)] if colour else []
    steps += [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    return loader_epoch(ImageFolder(folder / "train", transforms.Compose(steps)), workers)


class DecodedByTorchvision(Dataset):
    """torchvision's own JPEG decoder and its v2 transforms on bytes."""

    def __init__(self, folder: Path, colour: float) -> None:
        from torchvision.transforms import v2

        self.paths = sorted((folder / "train").rglob("*.jpg"))
        steps = [v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip()]
        steps += [v2.ColorJitter(colour, colour, colour)] if colour else []
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
        self.transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from torchvision.io import ImageReadMode, decode_jpeg, read_file

        data = read_file(str(self.paths[index]))
        return self.transform(decode_jpeg(data, ImageReadMode.RGB)), 0


def loader_epoch(dataset: Dataset, workers: int) -> Epoch:
    """A DataLoader whose workers, if any, stay alive from epoch to epoch."""
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True, **options)
    return lambda: (images for images, _ in loader)


def timm_epoch(folder: Path, colour: float, workers: int) -> Epoch:
    """timm's loader as its train script makes it, on the CPU: uint8 up to the batch, then normalised."""
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(folder / "train"), is_training=True)
    loader = create_loader(
        dataset,
        (3, SIDE, SIDE),
        BATCH,
        is_training=True,
        use_prefetcher=True,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        hflip=0.5,
        color_jitter=(colour, colour, colour) if colour else None,
        interpolation="bilinear",
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=False,
        device=torch.device("cpu"),
    )
    return lambda: (images for images, _ in loader)


def contenders(folder: Path, colour: float, workers: int) -> dict[str, Epoch]:
    """Name -> one epoch. Without workers, ours still has its one thread."""
    augment = Augment(min_area=0.08, aspect=(3 / 4, 4 / 3), photometric=colour)
    threads = max(workers, 1)
    found = {f"{OURS}": our_epoch(folder, augment, threads, keep="", fast=True)} if photo_module.FAST else {}
    found[f"{OURS}, Pillow alone"] = our_epoch(folder, augment, threads, keep="", fast=False)
    found[f"{OURS}, kept in memory"] = our_epoch(folder, augment, threads, keep="memory", fast=True)
    found[f"{OURS}, kept on disk"] = our_epoch(folder, augment, threads, keep="disk", fast=True)
    found["torchvision, Pillow"] = torchvision_epoch(folder, colour, workers)
    found["torchvision, own decoder, v2"] = loader_epoch(DecodedByTorchvision(folder, colour), workers)
    try:
        found["timm"] = timm_epoch(folder, colour, workers)
    except ImportError:
        print("timm is not installed: left out", file=sys.stderr)
    return found


def small_contenders(folder: Path, workers: int) -> dict[str, Epoch]:
    """32 x 32 images: ours shifted, mirrored and blanked; torchvision's padded crops, mirrored."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    dataset = open_dataset(folder)
    loader = Loader(dataset, dataset.split("train"), max(workers, 1))
    preprocess = Preprocess(height=SMALL_SIDE, width=SMALL_SIDE)
    epochs = iter(range(10**6))

    def ours() -> Iterator[Tensor]:
        for batch in loader.training_batches(preprocess, AUGMENTS["cutout"], BATCH, 0, next(epochs)):
            yield preprocess.normalize(batch.images)

    steps = [transforms.RandomCrop(SMALL_SIDE, 4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    steps += [transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    folder_set = ImageFolder(folder / "train", transforms.Compose(steps))
    return {OURS: ours, "torchvision, Pillow": loader_epoch(folder_set, workers)}


def measure(epochs: dict[str, Epoch], rounds: int) -> dict[str, list[float]]:
    """Images a second of each in each round, after one that does not count."""
    speeds: dict[str, list[float]] = {name: [] for name in epochs}
    for turn in range(rounds + 1):
        for name, epoch in epochs.items():
            started, seen = time.perf_counter(), 0
            for images in epoch():
                assert images.dtype == torch.float32
                seen += len(images)
            if turn:
                speeds[name].append(seen / (time.perf_counter() - started))
    return speeds


def rows_of(speeds: dict[str, list[float]], cores: int, title: str) -> list[dict]:
    """One row each; the first contender is the one the others are compared with."""
    first = next(iter(speeds.values()))
    return [
        {
            "what": title,
            "cores": cores,
            "loader": name,
            "images_per_s": statistics.median(values),
            "quartile_low": statistics.quantiles(values, n=4)[0],
            "quartile_high": statistics.quantiles(values, n=4)[2],
            "ratio": statistics.median(ours / theirs for ours, theirs in zip(first, values, strict=True)),
            "rounds": len(values),
        }
        for name, values in speeds.items()
    ]


def print_rows(rows: list[dict]) -> None:
    """One table."""
    table = Table(title=f"{rows[0]['what']}, {rows[0]['cores']} core(s), {rows[0]['rounds']} rounds in turns")
    for heading in ("loader", "images/s", "quartiles", f"{rows[0]['loader']} / this"):
        table.add_column(heading, justify="left" if heading == "loader" else "right")
    for row in rows:
        spread = f"{row['quartile_low']:.0f} to {row['quartile_high']:.0f}"
        table.add_row(row["loader"], f"{row['images_per_s']:.0f}", spread, f"{row['ratio']:.2f}")
    Console(width=110).print(table)


def main() -> None:
    """Make the files, measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="a zip with photographs of 500 x 375")
    parser.add_argument("--images", type=int, default=192, help="in an epoch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cores", type=int, nargs="+", choices=(1, 2), default=[1, 2])
    parser.add_argument("--colour", action="store_true", help="also change brightness, contrast and colour")
    parser.add_argument("--small", action="store_true", help="32 x 32 images instead")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    available = sorted(os.sched_getaffinity(0))
    found: dict = {"rows": [], "machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = list(archived(options.photos) if options.photos else photographs(48))
        if not files:
            sys.exit(f"{options.photos} holds no JPEG file of 500 x 375")
        if options.small:
            files = [shrunk(data) for data in files]
        lay_out(files, folder, -(-options.images // len(files)))
        found["files"], found["mean_bytes"] = len(files), statistics.mean(map(len, files))
        title = f"{len(files)} files of {found['mean_bytes'] / 1000:.0f} kB on average"
        for cores in options.cores:
            os.sched_setaffinity(0, available[:cores])
            workers = 0 if cores == 1 else cores
            if options.small:
                epochs = small_contenders(folder, workers)
            else:
                epochs = contenders(folder, 0.4 if options.colour else 0.0, workers)
            rows = rows_of(measure(epochs, options.rounds), cores, title)
            print_rows(rows)
            found["rows"] += rows
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def shrunk(data: bytes) -> bytes:
    """The picture at 32 x 32, as a JPEG file."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.resize((SMALL_SIDE, SMALL_SIDE)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
