"""Two processes train as one does, measure every image once, and come back when one of them is killed."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shapes import tiny_config
from test_resume import assert_same_run, comparable
from torch import nn

from inception.data.augment import AUGMENTS
from inception.data.loader import Loader
from inception.data.preprocess import Preprocess
from inception.data.sources import open_dataset
from inception.errors import UsageError
from inception.train.distributed import SharedBatchNorm, share_batch_norm
from inception.train.log import Silent, read_rows
from inception.train.prepare import prepare
from inception.train.ranks import ALONE, Ranks, joined, own_device
from inception.train.run import train_bundle
from inception.weights.bundle import load_bundle

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo"
)
# No dropout: two processes draw other masks than one. A small rate: rounding grows with every large step.
# 48 images make 6 batches of 8.
OPTIONS = {"optimizer": "sgd", "learning_rate": 0.002, "dropout": 0.0, "checkpoint_steps": 1}


def torchrun(*arguments: str, restarts: int = 0) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(restarts), str(Path(__file__).with_name("worker.py"))]
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def options_of(config) -> str:
    return json.dumps(dataclasses.asdict(config))


def test_gradients_of_two_processes_are_those_of_one():
    """In double precision, through every shared batch norm, with shares of four and three images."""
    torchrun("gradients")


@pytest.fixture(scope="module")
def pair(shapes, tmp_path_factory):
    """A run by two processes that nobody disturbed."""
    folder = tmp_path_factory.mktemp("pair") / "run"
    torchrun(options_of(tiny_config(shapes, folder, **OPTIONS)))
    return folder


def test_two_processes_have_the_losses_of_one(pair, shapes, tmp_path):
    train_bundle(tiny_config(shapes, tmp_path / "one", **OPTIONS))
    ours, theirs = read_rows(pair / "metrics.jsonl"), read_rows(tmp_path / "one" / "metrics.jsonl")
    assert [row["epoch"] for row in ours] == [1, 2]
    for two, one in zip(ours, theirs, strict=True):
        # Sums in another order: single precision, over a dozen steps.
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
        assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-3)
        assert two["train_top1"] == pytest.approx(one["train_top1"], abs=1.5 / 48)
    first, second = load_bundle(pair / "bundle"), load_bundle(tmp_path / "one" / "bundle")
    assert first.metrics["val"]["n"] == second.metrics["val"]["n"] == 12


def test_a_killed_process_brings_the_run_back_by_itself(pair, shapes, tmp_path):
    """And the end has the bits of the run that nobody disturbed."""
    torchrun(options_of(tiny_config(shapes, tmp_path / "run", **OPTIONS)), "8", restarts=3)
    assert_same_run(tmp_path / "run", pair)
    assert len(comparable(tmp_path / "run")) == 2


def test_every_image_is_measured_and_trained_on_once(shapes):
    dataset = open_dataset(shapes)
    preprocess = Preprocess(height=8, width=8)
    for split, size in (("train", 10), ("val", 5)):
        samples = dataset.split(split)
        seen, trained = [], []
        for rank in range(3):
            loader = Loader(dataset, samples, rank=rank, ranks=3)
            for batch in loader.evaluation_batches(preprocess, size):
                seen += batch.indices.tolist()
            batches = list(loader.training_batches(preprocess, AUGMENTS["shift"], size, 0, 0))
            assert [batch.position for batch in batches] == list(range(loader.batch_count(size)))
            trained += [index for batch in batches for index in batch.indices.tolist()]
        assert sorted(seen) == list(range(len(samples)))
        # A last batch of fewer images than processes is left out: 12 = 5 + 5 + 2.
        left_out = len(samples) % size if len(samples) % size < 3 else 0
        assert len(trained) == len(set(trained)) == len(samples) - left_out


@pytest.fixture
def group(tmp_path):
    """This process as the only one of a group, so that collectives run."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("learned", ["scale and shift", "shift", "nothing"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_shared_batch_norm_of_one_process_is_batch_norm(group, learned, momentum):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.BatchNorm2d(5, affine=learned != "nothing", momentum=momentum))
    theirs = nn.BatchNorm2d(5, affine=learned != "nothing", momentum=momentum)
    for norm in (ours[0], theirs) if learned == "shift" else ():
        norm.register_parameter("weight", None)
    share_batch_norm(ours)
    assert type(ours[0]) is SharedBatchNorm
    for mode in (True, True, False):
        x = (3 + 2 * torch.randn(4, 5, 3, 2)).requires_grad_()
        y = x.detach().clone().requires_grad_()
        ours.train(mode)
        theirs.train(mode)
        weight = torch.randn(4, 5, 3, 2)
        (ours(x) * weight).sum().backward()
        (theirs(y) * weight).sum().backward()
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours[0].state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_alone_there_is_nothing_to_exchange(monkeypatch):
    value = torch.arange(3)
    assert ALONE.add_up(value) is value
    assert ALONE.gather(value)[0] is value
    ALONE.wait()
    monkeypatch.delenv("RANK", raising=False)
    with joined("cpu") as ranks:
        assert ranks == ALONE
    assert own_device(torch.device("cpu")) == torch.device("cpu")


def test_processes_that_cannot_be_joined(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere", "MASTER_PORT": "x"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="cannot be joined"), joined("cpu"):
        pass


def test_several_processes_need_a_named_folder_and_enough_images(shapes, tmp_path):
    with pytest.raises(UsageError, match="give --output"):
        prepare(dataclasses.replace(tiny_config(shapes, tmp_path), output=""), Silent(), Ranks(0, 2))
    with pytest.raises(UsageError, match="too small for 16 processes"):
        prepare(tiny_config(shapes, tmp_path / "run"), Silent(), Ranks(0, 16))
