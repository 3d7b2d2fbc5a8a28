"""Every image once, in a fixed order, whatever the threads do; and what is unreadable is counted."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from shapes import COLOURS, shape_picture, write_shapes
from sklearn.datasets import load_sample_image

from inception.data import loader as module
from inception.data import photo
from inception.data.augment import AUGMENTS
from inception.data.loader import Loader, training_order
from inception.data.preprocess import Preprocess
from inception.data.sources import open_dataset
from inception.errors import DataError, UsageError

SMALL = Preprocess(height=16, width=16)


def make_loader(folder, **options) -> Loader:
    dataset = open_dataset(folder)
    return Loader(dataset, dataset.split("train"), **options)


def load_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("load")]


@pytest.fixture
def damaged(tmp_path):
    """Nine pictures a class; jade's first is cut off, amber's third is gone once the set is open."""
    root = write_shapes(tmp_path / "shapes", {"train": 9, "val": 1})
    cut = root / "train" / "jade" / "00.png"
    cut.write_bytes(cut.read_bytes()[:60])
    return root


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 7, 48, 100])
def test_evaluation_visits_every_sample_once_in_order(shapes, workers, batch_size):
    loader = make_loader(shapes, workers=workers)
    batches = list(loader.evaluation_batches(SMALL, batch_size))
    indices = torch.cat([batch.indices for batch in batches])
    assert indices.tolist() == list(range(len(loader))) == list(range(48))
    assert [len(batch.images) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    targets = torch.cat([batch.targets for batch in batches])
    assert targets.tolist() == [sample.label for sample in loader.samples]
    assert targets.dtype == torch.int64
    images = torch.cat([batch.images for batch in batches])
    assert images.dtype == torch.uint8
    assert torch.equal(images[5], SMALL.apply(loader.image(5, SMALL)))


def collected(loader: Loader, epoch: int = 1, seed: int = 3, skip: int = 0) -> tuple[torch.Tensor, ...]:
    batches = list(loader.training_batches(SMALL, AUGMENTS["paper"], 7, seed, epoch, skip))
    return torch.cat([batch.indices for batch in batches]), torch.cat([batch.images for batch in batches])


def test_training_is_the_same_whatever_the_number_of_threads_or_the_cache(shapes):
    expected = collected(make_loader(shapes, workers=1))
    for options in ({"workers": 4}, {"workers": 2, "cache_bytes": 0}):
        again = collected(make_loader(shapes, **options))
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, expected, strict=True))


def test_training_visits_every_sample_once_in_an_order_of_the_seed_and_epoch(shapes):
    loader = make_loader(shapes)
    orders = [tuple(collected(loader, epoch, seed)[0].tolist()) for epoch in (0, 1) for seed in (0, 1)]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(48)) for order in orders)
    assert orders[0] == tuple(training_order(48, 0, 0))


@pytest.mark.parametrize("skip", [0, 1, 3, 6, 7])
def test_skipping_continues_exactly(shapes, skip):
    loader = make_loader(shapes)
    indices, images = collected(loader)
    batches = list(loader.training_batches(SMALL, AUGMENTS["paper"], 7, 3, 1, skip))
    assert sum(len(batch.images) for batch in batches) == max(48 - 7 * skip, 0)
    if batches:
        assert torch.equal(torch.cat([batch.indices for batch in batches]), indices[7 * skip :])
        assert torch.equal(torch.cat([batch.images for batch in batches]), images[7 * skip :])


def test_a_batch_knows_its_position_even_after_an_empty_one(damaged):
    """With one image a batch, the unreadable image's batch is left out; a resumed run must not count on."""
    loader = make_loader(damaged)
    unreadable = next(i for i, sample in enumerate(loader.samples) if sample.path.endswith("jade/00.png"))
    order = training_order(27, 0, 0).tolist()
    gap = order.index(unreadable)
    positions = [b.position for b in loader.training_batches(SMALL, AUGMENTS["shift"], 1, 0, 0)]
    assert positions == [position for position in range(27) if position != gap]
    late = [b.position for b in loader.training_batches(SMALL, AUGMENTS["shift"], 1, 0, 0, skip=20)]
    assert late == [position for position in positions if position >= 20]


def test_unreadable_and_vanished_images_are_skipped_and_counted(damaged):
    loader = make_loader(damaged)
    (damaged / "train" / "amber" / "02.png").unlink()
    batches = list(loader.evaluation_batches(SMALL, 5))
    assert sum(len(batch.images) for batch in batches) == 25
    assert sorted(loader.unreadable) == ["train/amber/02.png", "train/jade/00.png"]
    assert "train/jade/00.png" in loader.unreadable["train/jade/00.png"]
    for batch in batches:
        assert batch.targets.tolist() == [loader.samples[index].label for index in batch.indices]
    list(loader.evaluation_batches(SMALL, 5))
    assert len(loader.unreadable) == 2


def test_a_file_of_a_csv_that_vanishes_is_counted(tmp_path):
    rows = ["path,label,split"]
    for label in COLOURS:
        for index in range(4):
            shape_picture(label, index).save(tmp_path / f"{label}{index}.png")
            rows.append(f"{label}{index}.png,{label},{'val' if index == 3 else 'train'}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    loader = make_loader(tmp_path / "list.csv")
    (tmp_path / "jade1.png").unlink()
    assert sum(len(batch.images) for batch in loader.evaluation_batches(SMALL, 4)) == 8
    assert list(loader.unreadable) == ["jade1.png"]


def test_strict_stops_at_the_first_unreadable_image_and_leaves_no_thread(damaged):
    loader = make_loader(damaged, strict=True)
    with pytest.raises(DataError, match=r"jade/00\.png.*--strict"):
        list(loader.evaluation_batches(SMALL, 4))
    assert load_threads() == []


def test_kept_views_stay_within_the_limit_and_change_nothing(shapes):
    view, limit = 3 * 16 * 16, 20_000
    plain, loader = make_loader(shapes, cache_bytes=0), make_loader(shapes, cache_bytes=limit)
    [first] = loader.evaluation_batches(SMALL, 48)
    kept = loader._memory.views(48, SMALL)
    assert kept._images.nbytes == limit // view * view
    assert int((kept._slots >= 0).sum()) == limit // view
    [second] = loader.evaluation_batches(SMALL, 48)
    [uncached] = plain.evaluation_batches(SMALL, 48)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.images, uncached.images)


def test_kept_photographs_stay_within_the_limit(shapes):
    limit = 40_000
    loader = make_loader(shapes, cache_bytes=limit)
    collected(loader)
    held = sum(pixels.nbytes for pixels in loader._memory._photos.values())
    assert limit - 60 * 60 * 3 < held <= limit
    assert held == loader._memory._bytes


def test_one_kind_of_thing_is_kept_at_a_time(shapes):
    loader = make_loader(shapes)
    collected(loader)
    assert len(loader._memory._photos) == 48
    list(loader.evaluation_batches(SMALL, 8))
    assert not loader._memory._photos
    assert loader._memory._bytes == 0
    list(loader.evaluation_batches(Preprocess(height=8, width=8), 8))
    assert loader._memory._views._images.shape == (48, 3, 8, 8)
    collected(loader)
    assert loader._memory._views is None


def test_a_loader_alone_shares_what_is_kept(shapes, monkeypatch):
    loader = make_loader(shapes, rank=1, ranks=2)
    list(loader.alone().evaluation_batches(SMALL, 8))
    monkeypatch.setattr(module, "decode_image", None)
    assert sum(len(batch.images) for batch in loader.evaluation_batches(SMALL, 8)) == 24


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two classes of four JPEG photographs, 240 x 180; for `crop` at 32 half of that is enough."""
    root = tmp_path_factory.mktemp("photographs")
    for label in ("china", "flower"):
        picture = Image.fromarray(load_sample_image(f"{label}.jpg"))
        for split, numbers in (("train", range(4)), ("val", range(4, 5))):
            (root / split / label).mkdir(parents=True)
            for number in numbers:
                cut = picture.resize(
                    (240, 180), box=(30 * number, 10 * number, 400 + 30 * number, 300 + 10 * number)
                )
                cut.save(root / split / label / f"{number}.jpg", quality=90)
    return root


@pytest.mark.parametrize("name, side", [("paper", 48), ("crop", 160), ("crop", 32), ("shift", 48)])
def test_views_of_photographs_do_not_depend_on_what_is_kept(photographs, name, side, tmp_path):
    """Whole and kept, or decoded only down to the cut's end: the same bits, with and without simplejpeg."""
    small = Preprocess(height=side, width=side)

    def views(cache_bytes: int, cache_folder: Path | None = None) -> torch.Tensor:
        loader = make_loader(photographs, cache_bytes=cache_bytes, cache_folder=cache_folder)
        batches = [b for e in range(3) for b in loader.training_batches(small, AUGMENTS[name], 4, 0, e)]
        return torch.cat([batch.images for batch in batches])

    expected = views(0)
    assert torch.equal(views(2**30), expected)
    assert torch.equal(views(3 * 240 * 180 * 3), expected)
    assert torch.equal(views(3 * 240 * 180 * 3, tmp_path), expected)
    assert list(tmp_path.iterdir()) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo, "FAST", None)
        assert torch.equal(views(0), expected)


def test_each_photograph_is_decoded_once_when_the_rest_goes_to_the_disk(photographs, tmp_path, monkeypatch):
    loader = make_loader(photographs, cache_bytes=3 * 240 * 180 * 3, cache_folder=tmp_path)
    small, opened = Preprocess(height=48, width=48), []
    open_photo = module.open_photo
    monkeypatch.setattr(
        module, "open_photo", lambda data, name, *more: opened.append(name) or open_photo(data, name, *more)
    )
    for epoch in range(3):
        list(loader.training_batches(small, AUGMENTS["paper"], 4, 0, epoch))
    assert sorted(opened) == sorted(sample.path for sample in loader.samples)


def test_a_full_disk_costs_speed_alone(photographs, tmp_path, monkeypatch):
    small = Preprocess(height=48, width=48)
    [expected] = make_loader(photographs).training_batches(small, AUGMENTS["paper"], 8, 0, 0)
    loader = make_loader(photographs, workers=1, cache_bytes=0, cache_folder=tmp_path)
    written = []

    def pwrite(file: int, data: memoryview, start: int) -> int:
        if len(written) == 5:  # half-way through the third photograph
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(start)
        return real(file, data[: -(-len(data) // 2)] if len(written) % 2 else data, start)

    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", pwrite)
    for _ in range(2):
        [batch] = loader.training_batches(small, AUGMENTS["paper"], 8, 0, 0)
        assert torch.equal(batch.images, expected.images)
    assert not loader._memory.has_room((1, 1))


def test_a_folder_that_cannot_be_written_is_said(photographs, tmp_path):
    with pytest.raises(UsageError, match=r"cannot keep photographs in .*absent: No such file"):
        make_loader(photographs, cache_folder=tmp_path / "absent")


def test_large_photographs_are_kept_reduced(photographs):
    loader, small = make_loader(photographs), Preprocess(height=32, width=32)
    list(loader.training_batches(small, AUGMENTS["crop"], 4, 0, 0))
    assert {pixels.shape for pixels in loader._memory._photos.values()} == {(90, 120, 3)}
    assert loader.image(0, SMALL).size == (240, 180)


def test_a_cached_image_is_decoded_once(shapes, monkeypatch):
    loader = make_loader(shapes)
    list(loader.evaluation_batches(SMALL, 8))
    monkeypatch.setattr("inception.data.loader.decode_image", None)
    assert sum(len(batch.images) for batch in loader.evaluation_batches(SMALL, 8)) == 48


def test_decoding_runs_at_most_three_batches_ahead(shapes, monkeypatch):
    loader = make_loader(shapes, cache_bytes=0)
    read = []
    decode = Loader.image
    monkeypatch.setattr(
        Loader, "image", lambda self, index, *more: read.append(index) or decode(self, index, *more)
    )
    batches = loader.evaluation_batches(SMALL, 4)
    next(batches)
    time.sleep(0.3)
    assert len(read) <= 12
    next(batches)
    time.sleep(0.3)
    assert len(read) <= 16
    batches.close()


def test_an_interrupted_iteration_leaves_no_threads(shapes):
    batches = make_loader(shapes).evaluation_batches(SMALL, 4)
    next(batches)
    assert load_threads()
    batches.close()
    assert load_threads() == []


@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), MemoryError(), SystemExit(3), OSError(5, "I/O")], ids=repr
)
def test_a_thread_that_dies_is_reported_with_its_image(shapes, monkeypatch, error):
    calls = []

    def dying(data, bits, name):
        calls.append(name)
        if len(calls) == 9:
            raise error
        return decode(data, bits=bits, name=name)

    decode = module.decode_image
    monkeypatch.setattr(module, "decode_image", dying)
    with pytest.raises(DataError, match=rf"a loading thread died at train/.*\.png \({type(error).__name__}"):
        list(make_loader(shapes).evaluation_batches(SMALL, 4))
    deadline = time.monotonic() + 10
    while load_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert load_threads() == []
