"""Training streams from tar shards: stopped anywhere it ends with the same bits; two processes share them."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from shapes import tiny_config
from test_ranks import OPTIONS, torchrun
from test_resume import StopAfter, assert_same_run

from inception.data.sharding import write_shards
from inception.data.sources import open_dataset
from inception.train.interrupt import Interrupted
from inception.train.log import read_rows
from inception.train.run import train_bundle


@pytest.fixture(scope="module")
def sharded(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded") / "shapes"
    write_shards(open_dataset(shapes), folder, shard_images=7)
    return folder


def test_stopped_within_an_epoch_it_ends_bit_identical(sharded, tmp_path):
    """48 images make 5 batches of 10; stopped after 3, after 7 and after 11."""
    train_bundle(tiny_config(sharded, tmp_path / "straight", epochs=3, batch_size=10))
    wanted = tiny_config(sharded, tmp_path / "run", epochs=3, batch_size=10)
    for attempt in range(3):
        with pytest.raises(Interrupted):
            train_bundle(replace(wanted, resume=attempt > 0), StopAfter(4))
    train_bundle(replace(wanted, resume=True))
    assert_same_run(tmp_path / "run", tmp_path / "straight")


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")
def test_two_processes_have_the_losses_of_one(sharded, tmp_path):
    train_bundle(tiny_config(sharded, tmp_path / "one", **OPTIONS))
    torchrun(json.dumps(asdict(tiny_config(sharded, tmp_path / "two", **OPTIONS))))
    one, two = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    for ours, theirs in zip(two, one, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-3)
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-3)
