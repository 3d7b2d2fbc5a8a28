"""Tar shards: written the same every time, read exactly, refused when damaged; those of others read too."""

import hashlib
import io
import itertools
import json
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inception.cli.main import run
from inception.data import sharding
from inception.data.augment import AUGMENTS
from inception.data.check import check_dataset
from inception.data.loader import Loader
from inception.data.preprocess import Preprocess
from inception.data.sharding import parse_size, write_shards
from inception.data.shards import WINDOW_SHARDS, ShardColumns, ShardStore, shard_order
from inception.data.sources import open_dataset
from inception.errors import DataError, ImageError, UsageError
from inception.runtime.inputs import expand_inputs


@pytest.fixture(scope="module")
def sharded(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes as shards of seven images; not to be written to."""
    folder = tmp_path_factory.mktemp("shards") / "shapes"
    write_shards(open_dataset(shapes), folder, shard_images=7)
    return folder


@pytest.fixture
def copied(sharded: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copied"
    folder.mkdir()
    for path in sharded.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_shards_do_not_lie_among_what_they_hold(shapes):
    with pytest.raises(UsageError, match="inside the data"):
        write_shards(open_dataset(shapes), shapes / "shards")
    assert not (shapes / "shards").exists()


def test_every_image_is_there_once_with_its_class_split_and_bytes(shapes, sharded):
    source, shards = open_dataset(shapes), open_dataset(sharded)
    assert shards.labels == source.labels
    described = []
    for sample in shards.samples:
        file, _, member = sample.path.partition("/")
        with tarfile.open(sharded / file) as tar:
            key = member.partition(".")[0]
            path = json.load(tar.extractfile(f"{key}.json"))["path"]
            assert int(tar.extractfile(f"{key}.cls").read()) == sample.label
        described.append((path, sample.label, sample.split, shards.read(sample)))
    assert sorted(described) == sorted((s.path, s.label, s.split, source.read(s)) for s in source.samples)


def test_index_describes_the_shards(sharded):
    index = json.loads((sharded / "index.json").read_text())
    assert index["splits"] == {
        "train": {"images": 48, "shards": 7},
        "val": {"images": 12, "shards": 2},
        "test": {"images": 12, "shards": 2},
    }
    for shard in index["shards"]:
        data = (sharded / shard["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])


def test_the_bytes_depend_on_the_data_alone(shapes, sharded, tmp_path):
    write_shards(open_dataset(shapes), tmp_path / "again", shard_images=7)
    assert contents(tmp_path / "again") == contents(sharded)


def test_shards_keep_to_the_size(shapes, tmp_path):
    write_shards(open_dataset(shapes), tmp_path / "small", shard_bytes=51200)
    shards = sorted((tmp_path / "small").glob("train-*.tar"))
    assert len(shards) > 1
    assert all(path.stat().st_size <= 51200 for path in shards)


def test_an_image_over_the_size_gets_a_shard_of_its_own(shapes, tmp_path):
    written = write_shards(open_dataset(shapes), tmp_path / "single", shard_bytes=1)
    assert written.shards == written.images


def test_the_webdataset_library_reads_them(sharded):
    webdataset = pytest.importorskip("webdataset", reason="the layout's own library is not installed")
    files = [str(path) for path in sorted(sharded.glob("train-*.tar"))]
    read = list(
        webdataset.WebDataset(files, shardshuffle=False).decode("rgb8").to_tuple("png", "cls", "json")
    )
    dataset = open_dataset(sharded)
    expected = [sample for sample in dataset.samples if sample.split == "train"]
    assert [int(number) for _, number, _ in read] == [sample.label for sample in expected]
    assert [described["label"] for *_, described in read] == [dataset.labels[s.label] for s in expected]


@pytest.mark.parametrize("moment", [0, 3, 8])
def test_a_stopped_run_leaves_no_half_and_goes_on(shapes, sharded, tmp_path, monkeypatch, moment):
    """Stopped within the shard after `moment` whole ones; the end has the bytes of an undisturbed run."""
    folder, dataset = tmp_path / "stopped", open_dataset(shapes)
    real, begun = sharding._Writer._write, itertools.count()

    def stopping(self, path, samples, first):
        if next(begun) == moment:
            (folder / f".{path.name}.x1.tmp").write_bytes(b"half")  # as SIGKILL leaves it
            raise KeyboardInterrupt
        return real(self, path, samples, first)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sharding._Writer, "_write", stopping)
        write_shards(dataset, folder, shard_images=7)
    whole = contents(sharded)
    assert {name for name in contents(folder) if not name.startswith(".")} <= whole.keys()
    with pytest.raises(DataError, match="unfinished"):
        open_dataset(folder)
    assert write_shards(dataset, folder, shard_images=7).kept == moment
    assert contents(folder) == whole


def test_other_content_is_not_written_over(shapes, sharded, copied, tmp_path):
    dataset = open_dataset(shapes)
    with pytest.raises(UsageError, match="not empty"):
        write_shards(dataset, copied, shard_images=8)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "train-000000.tar").write_bytes(b"somebody else's")
    with pytest.raises(UsageError, match="not empty"):
        write_shards(dataset, foreign)
    assert (foreign / "train-000000.tar").read_bytes() == b"somebody else's"
    with pytest.raises(UsageError, match="is a file"):
        write_shards(dataset, foreign / "train-000000.tar")
    assert write_shards(dataset, copied, shard_images=7).kept == 11
    assert contents(copied) == contents(sharded)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "train-000001.tar").unlink(), "is missing"),
        (lambda folder: (folder / "train-000001.index.json").unlink(), "is missing"),
        (lambda folder: _cut(folder / "train-000001.tar"), "cut short"),
        (lambda folder: _cut(folder / "train-000001.index.json"), "SHA-256"),
        (lambda folder: _cut(folder / "index.json"), "is damaged"),
        (lambda folder: _edit(folder, schema=2), "schema 2"),
        (lambda folder: _edit(folder, shards=7), "does not describe its shards"),
        (lambda folder: _edit(folder, shards=[{"file": "../x.tar", "split": "train"}]), "no shard is named"),
    ],
)
def test_damage_is_one_sentence(copied, damage, sentence):
    damage(copied)
    with pytest.raises(DataError, match=sentence) as raised:
        open_dataset(copied)
    assert "\n" not in str(raised.value)
    with pytest.raises(ImageError, match=sentence):
        next(expand_inputs([str(copied)], ()))[1]()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


def _edit(folder: Path, **values: object) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_check_finds_a_flipped_bit(copied, sharded):
    path = copied / "test-000000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1  # in the first image
    path.write_bytes(data)
    report = check_dataset(copied)
    assert {item.path.partition("/")[0] for item in report.unreadable} == {"test-000000.tar"}
    assert [item.kind for item in report.unreadable] == ["corrupt", "corrupt"]
    dataset = open_dataset(copied)
    with pytest.raises(ImageError, match="checksum"):
        dataset.store.read("test-000000.tar/00000000.png")
    assert check_dataset(sharded).unreadable == ()


def test_a_flipped_bit_between_the_images_is_found_too(copied):
    path = copied / "test-000000.tar"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert [item.path for item in check_dataset(copied).unreadable] == ["test-000000.tar"]


def store_of(shards: int, images: int) -> ShardStore:
    columns = ShardColumns()
    for shard, image in itertools.product(range(shards), range(images)):
        columns.add(f"{shard:03}.tar/{image}.jpg", shard, 0, 0)
    return ShardStore(Path("nowhere"), [Path(f"{shard:03}.tar") for shard in range(shards)], columns)


def test_order_is_a_function_of_seed_and_epoch_that_visits_few_shards_at_a_time():
    from inception.data.dataset import Sample

    shards, images = 3 * WINDOW_SHARDS + 2, 5
    store = store_of(shards, images)
    samples = [Sample(name, 0, "train") for name in store.names()]
    orders = {(seed, epoch): shard_order(store, samples, seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    assert len({order.tobytes() for order in orders.values()}) == 4
    for (seed, epoch), order in orders.items():
        assert sorted(order.tolist()) == list(range(len(samples)))
        assert np.array_equal(order, shard_order(store, samples, seed, epoch))
        of = [store.shard_of(samples[index].path) for index in order]
        window = WINDOW_SHARDS * images
        for start in range(0, len(of), window):
            assert len(set(of[start : start + window])) <= WINDOW_SHARDS
        assert of[:window] != sorted(of[:window])


def test_order_is_fair():
    """Over many epochs every image is as often early as late."""
    from inception.data.dataset import Sample

    store = store_of(2 * WINDOW_SHARDS, 3)
    samples = [Sample(name, 0, "train") for name in store.names()]
    places = np.mean([np.argsort(shard_order(store, samples, 0, epoch)) for epoch in range(400)], axis=0)
    spread = len(samples) / np.sqrt(12 * 400)
    assert np.abs(places - (len(samples) - 1) / 2).max() < 6 * spread


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_processes_divide_an_epoch_exactly_and_resume_anywhere(sharded, ranks):
    dataset = open_dataset(sharded)
    samples = dataset.split("train")

    def seen(rank: int, skip: int = 0) -> list[list[int]]:
        loader = Loader(dataset, samples, rank=rank, ranks=ranks)
        batches = loader.training_batches(Preprocess(16, 16), AUGMENTS["none"], 8, 3, 1, skip)
        return [batch.indices.tolist() for batch in batches]

    whole = [seen(rank) for rank in range(ranks)]
    assert sorted(index for rank in whole for batch in rank for index in batch) == list(range(len(samples)))
    alone = Loader(dataset, samples).training_batches(Preprocess(16, 16), AUGMENTS["none"], 8, 3, 1)
    for step, batch in enumerate(alone):
        assert sorted(i for rank in whole for i in rank[step]) == sorted(batch.indices.tolist())
    assert [seen(rank, skip=4) for rank in range(ranks)] == [rank[4:] for rank in whole]


def test_store_travels_to_another_process(sharded):
    dataset = open_dataset(sharded)
    sample = dataset.samples[5]
    data = dataset.read(sample)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.read(sample) == data
    assert (copy.samples, copy.fingerprint) == (dataset.samples, dataset.fingerprint)


def test_more_shards_than_files_may_be_open(sharded, monkeypatch):
    monkeypatch.setattr("inception.data.shards._OPEN_FILES", 2)
    dataset = open_dataset(sharded)
    assert all(dataset.read(sample) for sample in dataset.samples)
    assert len(dataset.store._open) == 2


def tar_of(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def picture(shapes: Path) -> bytes:
    return (shapes / "train" / "jade" / "00.png").read_bytes()


def test_classes_of_foreign_shards(tmp_path, picture):
    """Numbers with a list of names, names in .cls, names and numbers in .json; splits by shards' names."""
    folder = tmp_path / "foreign"
    numbered = [
        (f"a/{n}.{e}", d) for n in range(4) for e, d in (("png", picture), ("cls", b"%d\n" % (n % 2)))
    ]
    tar_of(folder / "set-train-000000.tar", numbered)
    tar_of(
        folder / "set-validation-000000.tar",
        [
            ("x.input.png", picture),
            ("x.json", b'{"label": "cat", "id": 3}'),
            ("y.PNG", picture),
            ("y.json", b'{"label": 1}'),
            ("z.png", picture),
            ("z.cls", b"dog"),
            ("notes.txt", b"no image"),
        ],
    )
    (folder / "classnames.txt").write_text("cat\ndog\n")
    dataset = open_dataset(folder)
    assert dataset.labels == ("cat", "dog")
    assert dataset.splits == ("train", "val")
    found = {sample.path: dataset.labels[sample.label] for sample in dataset.split("val")}
    where = "set-validation-000000.tar"
    assert found == {f"{where}/x.input.png": "cat", f"{where}/y.png": "dog", f"{where}/z.png": "dog"}
    assert all(dataset.read(sample) == picture for sample in dataset.samples)


def test_foreign_shards_in_folders_of_splits_and_one_alone(tmp_path, picture):
    members = [(f"{n}.{e}", d) for n in range(6) for e, d in (("png", picture), ("cls", b"%d" % (n % 2)))]
    for split in ("train", "test"):
        tar_of(tmp_path / "set" / split / "0.tar", members)
    dataset = open_dataset(tmp_path / "set", val_fraction=0)
    assert (dataset.labels, dataset.splits) == (("0", "1"), ("train", "test"))
    alone = open_dataset(tmp_path / "set" / "train" / "0.tar", val_fraction=0.34)
    assert {split: len(alone.split(split)) for split in alone.splits} == {
        "train": 4,
        "val": 2,
    } or alone.splits
    assert len(alone.samples) == 6


def test_the_webdataset_library_writes_what_is_read(tmp_path, picture):
    webdataset = pytest.importorskip("webdataset", reason="the layout's own library is not installed")
    pattern = str(tmp_path / "set" / "train-%03d.tar")
    (tmp_path / "set").mkdir()
    with webdataset.ShardWriter(pattern, maxcount=3, verbose=0) as sink:
        for number in range(8):
            sink.write({"__key__": f"{number:04}", "png": picture, "cls": number % 3})
    dataset = open_dataset(tmp_path / "set", val_fraction=0)
    assert len(dataset.store.files) == 3
    assert [dataset.labels[sample.label] for sample in dataset.samples] == [str(n % 3) for n in range(8)]
    assert all(dataset.read(sample) == picture for sample in dataset.samples)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [([("0.png", b"x")], "no class for the image 0.png"), ([("../0.png", b"x")], "outside the archive")],
)
def test_foreign_shards_that_cannot_be_used(tmp_path, members, sentence):
    tar_of(tmp_path / "set" / "0.tar", members)
    with pytest.raises(DataError, match=sentence):
        open_dataset(tmp_path / "set")


def test_a_foreign_shard_cut_short_is_one_sentence(tmp_path, picture):
    path = tar_of(tmp_path / "set" / "0.tar", [("0.png", picture), ("0.cls", b"0")])
    path.write_bytes(path.read_bytes()[: 512 + len(picture) // 2])
    with pytest.raises(DataError, match=r"0\.tar is not a complete tar"):
        open_dataset(tmp_path / "set")


def test_tars_of_class_folders_stay_what_they_were(tmp_path, picture):
    path = tar_of(tmp_path / "set.tar", [(f"{c}/{n}.png", picture) for c in "ab" for n in range(3)])
    assert open_dataset(path).labels == ("a", "b")


def test_shards_of_a_single_class_can_be_asked_about(shapes, tmp_path):
    dataset = open_dataset(shapes)
    only = tuple(sample for sample in dataset.samples if sample.label == 0)
    write_shards(replace(dataset, samples=only, labels=dataset.labels[:1]), tmp_path / "one")
    assert len(list(expand_inputs([str(tmp_path / "one")], ()))) == len(only)


def test_unlabelled_shards_can_be_asked_about(tmp_path, picture):
    tar_of(tmp_path / "set" / "0.tar", [("a.png", picture), ("b.png", picture), ("b.txt", b"a caption")])
    items = list(expand_inputs([str(tmp_path / "set")], ()))
    assert [name for name, _ in items] == [f"{tmp_path}/set/0.tar/a.png", f"{tmp_path}/set/0.tar/b.png"]
    assert items[0][1]().size == items[1][1]().size


@pytest.mark.parametrize(
    ("text", "size"), [("256MB", 256_000_000), ("64MiB", 2**26), ("1 gb", 10**9), ("12345", 12345)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "much", "-1MB", "1.5GB"])
def test_no_sizes(text):
    with pytest.raises(UsageError, match="is no size"):
        parse_size(text)


def test_command(shapes, sharded, tmp_path, capsys):
    arguments = ["shard", str(shapes), "-o", str(tmp_path / "out"), "--images-per-shard", "7", "--json"]
    assert run(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["images"] == {"train": 48, "val": 12, "test": 12}
    assert run(["check", str(tmp_path / "out"), "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["images"] == 72
    assert run([*arguments[:-2], "9"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert run(["shard", str(shapes), "-o", str(tmp_path / "new"), "--size", "large"]) == 2
