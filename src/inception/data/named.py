"""Data sets known by name: where they come from, how they are verified and how they are laid out.

Checksums are SHA-256; each was found published by at least two unrelated projects together with the MD5
that the set's authors (or torchvision) give for the same file.
"""

import gzip
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inception.data.archives import TarStore
from inception.data.dataset import Dataset, Record, build_dataset
from inception.data.download import Progress, download, matches
from inception.data.flowers import FLOWER_NAMES
from inception.data.records import RecordStore, to_png
from inception.data.split import stratified_split
from inception.data.stores import MemoryStore
from inception.errors import DataError
from inception.files import atomic_path


@dataclass(frozen=True)
class _Remote:
    url: str
    checksum: str
    size: int | None = None

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]


_CIFAR = _Remote(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    170_052_171,
)
_CIFAR_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR_FILES = {f"data_batch_{number}.bin": "train" for number in range(1, 6)} | {"test_batch.bin": "test"}
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_RECORDS, _CIFAR_RECORD_BYTES = 10_000, 1 + 3 * 32 * 32

_FASHION_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
_FASHION = {
    "train": (
        _Remote(
            f"{_FASHION_URL}train-images-idx3-ubyte.gz",
            "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            26_421_880,
        ),
        _Remote(
            f"{_FASHION_URL}train-labels-idx1-ubyte.gz",
            "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            29_515,
        ),
    ),
    "test": (
        _Remote(
            f"{_FASHION_URL}t10k-images-idx3-ubyte.gz",
            "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            4_422_102,
        ),
        _Remote(
            f"{_FASHION_URL}t10k-labels-idx1-ubyte.gz",
            "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            5_148,
        ),
    ),
}
_FASHION_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_FASHION_SHAPE = (28, 28)
_IMAGES_HEADER_BYTES, _LABELS_HEADER_BYTES = 16, 8

_FLOWERS_URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_FLOWERS = _Remote(
    f"{_FLOWERS_URL}102flowers.tgz", "sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246"
)
_FLOWERS_LABELS = _Remote(
    f"{_FLOWERS_URL}imagelabels.mat",
    "sha256:4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
)
_FLOWERS_SPLITS = _Remote(
    f"{_FLOWERS_URL}setid.mat", "sha256:46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd"
)
_FLOWERS_KEYS = {"trnid": "train", "valid": "val", "tstid": "test"}


@dataclass(frozen=True)
class _Request:
    """What the caller of `open_named` wants."""

    name: str
    root: Path
    val_fraction: float
    seed: int
    progress: Progress | None

    def fetched(self, remote: _Remote) -> Path:
        """The verified file: already in the data root or in the set's folder there, or downloaded."""
        for folder in (self.root / self.name, self.root):
            path = folder / remote.file
            if path.is_file() and matches(path, remote.checksum):
                return path
        destination = self.root / self.name / remote.file
        return download(
            remote.url, destination, checksum=remote.checksum, size=remote.size, progress=self.progress
        )

    def unzipped(self, remote: _Remote) -> Path:
        """The file without its gzip compression, made once: raw records need random access."""
        stem = remote.file.removesuffix(".gz")
        plain = (
            self.root / self.name / (stem.removesuffix(".tgz") + ".tar" if stem.endswith(".tgz") else stem)
        )
        if not plain.is_file():
            packed = self.fetched(remote)
            try:
                with (
                    atomic_path(plain) as temporary,
                    gzip.open(packed) as source,
                    temporary.open("wb") as sink,
                ):
                    shutil.copyfileobj(source, sink, 1 << 20)
            except OSError as error:
                raise DataError(
                    f"{packed} cannot be unpacked to {plain} ({error}); give a data root that can be written."
                ) from error
        return plain


def open_named(
    name: str,
    *,
    data_root: Path | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Open a set of `NAMED_SETS`, downloading its files if they are not in the data root.

    - `digits`: 1,797 grey images of 8 x 8 that come with scikit-learn; divided 70/10/20 by `seed`.
    - `cifar10`: the authors' binary version; `val_fraction` of the training images become "val".
    - `fashion-mnist`: the authors' files; "val" likewise.
    - `flowers102`: the official division: 1,020 training, 1,020 validation and 6,149 test images.

    Args:
        name: of the set.
        data_root: default `$INCEPTION_DATA`, else `~/.cache/inception/data`. Files lie there in a folder of
            the set's name; files of the original names that are already there, or directly in the root, are
            used without any connection.
        val_fraction: share of the training images for "val".
        seed: of the division.
        progress: called while a file is downloaded, with its bytes so far and in all.

    Raises:
        DownloadError: if a file is missing and cannot be downloaded.
        DataError: if the files cannot be unpacked or are not what they should be.
    """
    root = data_root or Path(os.environ.get("INCEPTION_DATA") or "~/.cache/inception/data")
    return _OPENERS[name](_Request(name, root.expanduser(), val_fraction, seed, progress))


def _open_digits(request: _Request) -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    names = [f"{label}/{index:04d}.png" for index, label in enumerate(digits.target)]
    store = MemoryStore(
        {name: to_png(image) for name, image in zip(names, pixels, strict=True)}, "scikit-learn's digits"
    )
    splits = stratified_split(names, digits.target.tolist(), {"test": 0.2, "val": 0.1}, request.seed)
    records = [Record(name, name[0], split, name) for name, split in zip(names, splits, strict=True)]
    return build_dataset(request.name, records, store, flip_safe=False)


def _open_cifar10(request: _Request) -> Dataset:
    plain = request.unzipped(_CIFAR)
    try:
        with tarfile.open(plain, "r:") as archive:
            starts = {entry.name.rpartition("/")[2]: entry.offset_data for entry in archive}
            columns = {
                file: np.memmap(plain, np.uint8, "r", starts[file], _cifar_extent()) for file in _CIFAR_FILES
            }
    except (KeyError, OSError, ValueError, tarfile.TarError) as error:
        raise DataError(f"{plain} is not CIFAR-10's binary version; delete it and try again.") from error
    records, where = [], {}
    for file, split in _CIFAR_FILES.items():
        for row, label in enumerate(columns[file][:, 0].tolist()):
            name = f"{split}/{_CIFAR_LABELS[label]}/{file.removesuffix('.bin')}_{row:04d}.png"
            records.append(Record(name, _CIFAR_LABELS[label], split, name))
            where[name] = (0, starts[file] + row * _CIFAR_RECORD_BYTES + 1)
    store = RecordStore(str(plain), (plain,), where, _CIFAR_SHAPE, _CIFAR.checksum)
    return _build(request, records, store, _CIFAR_LABELS)


def _cifar_extent() -> tuple[int, int]:
    return _CIFAR_RECORDS, _CIFAR_RECORD_BYTES


def _open_fashion_mnist(request: _Request) -> Dataset:
    files, records, where = [], [], {}
    count = _FASHION_SHAPE[0] * _FASHION_SHAPE[1]
    for index, (split, (images, labels)) in enumerate(_FASHION.items()):
        files.append(request.unzipped(images))
        targets = gzip.decompress(request.fetched(labels).read_bytes())[_LABELS_HEADER_BYTES:]
        for row, label in enumerate(targets):
            name = f"{split}/{row:05d}.png"
            records.append(Record(name, _FASHION_LABELS[label], split, name))
            where[name] = (index, _IMAGES_HEADER_BYTES + row * count)
    checksum = _FASHION["train"][0].checksum
    store = RecordStore(str(files[0].parent), tuple(files), where, _FASHION_SHAPE, checksum)
    return _build(request, records, store, _FASHION_LABELS)


def _open_flowers102(request: _Request) -> Dataset:
    from scipy.io import loadmat

    labels = loadmat(request.fetched(_FLOWERS_LABELS))["labels"].ravel()
    splits = loadmat(request.fetched(_FLOWERS_SPLITS))
    store = TarStore(request.unzipped(_FLOWERS))
    records = []
    for key, split in _FLOWERS_KEYS.items():
        for number in splits[key].ravel().tolist():
            name = f"jpg/image_{number:05d}.jpg"
            records.append(Record(name, FLOWER_NAMES[int(labels[number - 1]) - 1], split, name))
    return _build(request, records, store, FLOWER_NAMES)


def _build(
    request: _Request, records: list[Record], store: RecordStore | TarStore, labels: tuple[str, ...]
) -> Dataset:
    return build_dataset(
        request.name, records, store, labels=labels, val_fraction=request.val_fraction, seed=request.seed
    )


_OPENERS: dict[str, Callable[[_Request], Dataset]] = {
    "digits": _open_digits,
    "cifar10": _open_cifar10,
    "fashion-mnist": _open_fashion_mnist,
    "flowers102": _open_flowers102,
}
NAMED_SETS = tuple(_OPENERS)
"""Names that `open_named` accepts."""
