"""Named sets, from miniature files in the published formats; nothing here touches the network."""

import dataclasses
import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from inception.data import named
from inception.data.decode import decode_image
from inception.data.flowers import FLOWER_NAMES
from inception.data.named import NAMED_SETS, open_named
from inception.data.sources import open_dataset
from inception.errors import DataError, DownloadError

RECORDS = 20


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("time.sleep", lambda _: None)


def pixels(dataset, sample) -> np.ndarray:
    return np.asarray(decode_image(dataset.read(sample)))


def put(path: Path, data: bytes, remote: named._Remote) -> named._Remote:
    """Place a file and return its entry of the table, with the checksum of this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return dataclasses.replace(remote, checksum=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits = load_digits()
    dataset = open_dataset("digits")
    assert dataset.labels == tuple("0123456789")
    assert [len(dataset.split(split)) for split in ("train", "val", "test")] == [1259, 179, 359]
    assert not dataset.flip_safe
    assert not dataset.automatic_split
    for sample in dataset.samples[::97]:
        index = int(Path(sample.path).stem)
        assert dataset.labels[sample.label] == str(digits.target[index])
        expected = digits.images[index] * 255 / 16
        assert np.abs(pixels(dataset, sample)[..., 0] - expected).max() <= 0.5
    for split in ("train", "val", "test"):
        shares = Counter(sample.label for sample in dataset.split(split))
        assert max(shares.values()) - min(shares.values()) <= 8


def test_digits_are_the_same_everywhere():
    first = open_dataset("digits")
    assert first.fingerprint == open_dataset("digits", val_fraction=0.3).fingerprint
    assert first.fingerprint != open_dataset("digits", seed=1).fingerprint
    assert first.fingerprint[:16] == "1d1f799415d20221"


@pytest.fixture
def cifar(tmp_path, monkeypatch) -> tuple[Path, np.ndarray]:
    """A CIFAR-10 archive of 6 x 20 records, and its records (label, then planes of red, green and blue)."""
    records = np.random.default_rng(0).integers(0, 256, (6, RECORDS, 3073), dtype=np.uint8)
    records[..., 0] = np.arange(RECORDS) % 10
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for index, file in enumerate([*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]):
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{file}")
            entry.size = records[index].nbytes
            archive.addfile(entry, io.BytesIO(records[index].tobytes()))
    path = tmp_path / "cifar10" / "cifar-10-binary.tar.gz"
    monkeypatch.setattr(named, "_CIFAR", put(path, buffer.getvalue(), named._CIFAR))
    monkeypatch.setattr(named, "_CIFAR_RECORDS", RECORDS)
    return tmp_path, records


def test_cifar10_from_its_binary_version(cifar):
    root, records = cifar
    dataset = open_dataset("cifar10", data_root=root)
    assert dataset.labels[:3] == ("airplane", "automobile", "bird")
    assert [len(dataset.split(split)) for split in ("train", "val", "test")] == [90, 10, 20]
    assert dataset.flip_safe
    files = {f"data_batch_{number + 1}": number for number in range(5)} | {"test_batch": 5}
    for sample in dataset.samples[::7]:
        file, row = Path(sample.path).stem.rsplit("_", 1)
        record = records[files[file], int(row)]
        assert sample.label == record[0]
        np.testing.assert_array_equal(
            pixels(dataset, sample), record[1:].reshape(3, 32, 32).transpose(1, 2, 0)
        )
        assert (sample.split == "test") == (file == "test_batch")


def test_an_unpacked_set_needs_its_archive_no_more_and_travels_light(cifar):
    root, _ = cifar
    first = open_dataset("cifar10", data_root=root)
    (root / "cifar10" / "cifar-10-binary.tar.gz").unlink()
    again = open_dataset("cifar10", data_root=root)
    assert again.fingerprint == first.fingerprint
    copy = pickle.loads(pickle.dumps(again))
    assert copy.read(copy.samples[3]) == first.read(first.samples[3])
    assert again.store.names() == sorted(sample.path for sample in again.samples)
    with pytest.raises(DataError, match="nothing"):
        again.store.read("nothing")


def test_a_damaged_unpacked_set_says_what_to_do(cifar):
    root, _ = cifar
    (root / "cifar10" / "cifar-10-binary.tar").write_bytes(b"rubbish")
    with pytest.raises(DataError, match="delete it"):
        open_dataset("cifar10", data_root=root)


def test_files_directly_in_the_data_root_or_its_variable_are_used(cifar, monkeypatch):
    root, _ = cifar
    (root / "cifar10" / "cifar-10-binary.tar.gz").rename(root / "cifar-10-binary.tar.gz")
    monkeypatch.setenv("INCEPTION_DATA", str(root))
    assert len(open_dataset("cifar10").samples) == 120


def test_a_wrong_file_is_not_used(cifar):
    root, _ = cifar
    (root / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(b"something else")
    with pytest.raises(DownloadError, match="put the file at"):
        open_dataset("cifar10", data_root=root)


@pytest.mark.parametrize("name", [name for name in NAMED_SETS if name != "digits"])
def test_what_is_neither_there_nor_to_be_had_says_where_to_put_it(name, tmp_path):
    with pytest.raises(DownloadError, match=str(tmp_path / name)):
        open_named(name, data_root=tmp_path)


def test_fashion_mnist_from_its_idx_files(tmp_path, monkeypatch):
    random = np.random.default_rng(1)
    table, images, labels = {}, {}, {}
    for split, count in (("train", 40), ("test", 10)):
        images[split] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels[split] = np.arange(count, dtype=np.uint8) % 10
        bodies = (
            struct.pack(">IIII", 2051, count, 28, 28) + images[split].tobytes(),
            struct.pack(">II", 2049, count) + labels[split].tobytes(),
        )
        table[split] = tuple(
            put(tmp_path / "fashion-mnist" / remote.file, gzip.compress(body), remote)
            for remote, body in zip(named._FASHION[split], bodies, strict=True)
        )
    monkeypatch.setattr(named, "_FASHION", table)
    dataset = open_dataset("fashion-mnist", data_root=tmp_path)
    assert (dataset.labels[0], dataset.labels[9], dataset.flip_safe) == ("T-shirt/top", "Ankle boot", True)
    assert {split: len(dataset.split(split)) for split in dataset.splits} == {
        "train": 30,
        "val": 10,
        "test": 10,
    }
    for sample in dataset.samples:
        split, row = sample.path.removesuffix(".png").split("/")
        assert sample.label == labels[split][int(row)]
        np.testing.assert_array_equal(pixels(dataset, sample)[..., 0], images[split][int(row)])


def test_flowers102_with_its_official_division(tmp_path, monkeypatch, picture_file):
    scipy_io = pytest.importorskip("scipy.io")
    count = 204
    labels = np.arange(count) % 102 + 1
    numbers = np.arange(1, count + 1)
    splits = {"trnid": numbers[:102], "valid": numbers[102:150], "tstid": numbers[150:]}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in numbers:
            data = picture_file(int(number), "JPEG")
            entry = tarfile.TarInfo(f"jpg/image_{number:05d}.jpg")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    folder = tmp_path / "flowers102"
    monkeypatch.setattr(named, "_FLOWERS", put(folder / "102flowers.tgz", buffer.getvalue(), named._FLOWERS))
    for attribute, content in (("_FLOWERS_LABELS", {"labels": labels[None]}), ("_FLOWERS_SPLITS", splits)):
        matrix = io.BytesIO()
        scipy_io.savemat(matrix, content)
        remote = getattr(named, attribute)
        monkeypatch.setattr(named, attribute, put(folder / remote.file, matrix.getvalue(), remote))
    dataset = open_dataset("flowers102", data_root=tmp_path)
    assert len(dataset.labels) == len(set(dataset.labels)) == 102
    assert (dataset.labels[0], dataset.labels[72], dataset.labels[101]) == (
        "pink primrose",
        "water lily",
        "blackberry lily",
    )
    assert {split: len(dataset.split(split)) for split in dataset.splits} == {
        "train": 102,
        "val": 48,
        "test": 54,
    }
    for sample in dataset.samples[::20]:
        number = int(Path(sample.path).stem.removeprefix("image_"))
        assert sample.label == labels[number - 1] - 1
        assert dataset.read(sample) == picture_file(number, "JPEG")


def test_every_remote_file_has_a_strong_checksum_and_a_secure_address():
    remotes = [named._CIFAR, *named._FASHION["train"], *named._FASHION["test"], named._FLOWERS]
    for remote in [*remotes, named._FLOWERS_LABELS, named._FLOWERS_SPLITS]:
        assert remote.url.startswith("https://")
        assert len(remote.checksum.removeprefix("sha256:")) == 64


def test_class_names_are_those_of_torchvision():
    datasets = pytest.importorskip("torchvision.datasets")
    assert tuple(datasets.FashionMNIST.classes) == named._FASHION_LABELS
    theirs = [name.rstrip("?") for name in datasets.Flowers102.classes]
    assert tuple(theirs) == FLOWER_NAMES
