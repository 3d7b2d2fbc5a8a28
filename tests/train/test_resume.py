"""A run that was interrupted, killed or damaged ends as the one that was not, or says what to do."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from shapes import tiny_config

from inception.errors import TrainingError, UsageError
from inception.train import checkpoint
from inception.train import prepare as preparation
from inception.train.checkpoint import CHECKPOINT_FOLDER, list_checkpoints, read_config_of
from inception.train.config import TrainConfig
from inception.train.interrupt import Interrupted, stop_on_signals
from inception.train.log import MetricsLog, Silent, read_rows
from inception.train.loop import TrainingLoop
from inception.train.prepare import prepare
from inception.train.run import train_bundle
from inception.train.state import Progress
from inception.weights.bundle import load_bundle


class StopAfter(Silent):
    """Presses Ctrl-C after so many batches."""

    def __init__(self, batches: int, number: int = signal.SIGINT) -> None:
        self.left, self.number = batches, number

    def batch_done(self, images, loss):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)


def config(shapes, folder, **options):
    return tiny_config(shapes, folder, **{"epochs": 3, "batch_size": 10, **options})


def comparable(folder):
    """The rows of metrics.jsonl without what depends on the clock."""
    timed = {"images_per_s", "seconds"}
    return [{k: v for k, v in row.items() if k not in timed} for row in read_rows(folder / "metrics.jsonl")]


def assert_same_run(ours, theirs):
    assert comparable(ours) == comparable(theirs)
    first, second = load_bundle(ours / "bundle"), load_bundle(theirs / "bundle")
    assert first.state_dict.keys() == second.state_dict.keys()
    for name, value in second.state_dict.items():
        assert torch.equal(first.state_dict[name], value), name
    assert (first.temperature, first.unknown_threshold) == (second.temperature, second.unknown_threshold)
    assert first.metrics == second.metrics


NETWORKS = {
    "muon": {},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.05},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.003},
    "dropout and auxiliary heads": {"model": "googlenet", "dropout": 0.5, "learning_rate": 0.01},
}


@pytest.fixture(scope="module", params=NETWORKS)
def straight(request, shapes, tmp_path_factory):
    """An uninterrupted run, and the options that make it."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    train_bundle(config(shapes, folder, **NETWORKS[request.param]))
    return folder, NETWORKS[request.param]


# 48 images make 5 batches an epoch: at the end of the first, in the middle of the second.
@pytest.mark.parametrize("batches", [5, 8])
def test_an_interrupted_run_ends_bit_identical(straight, shapes, tmp_path, batches):
    folder, options = straight
    wanted = config(shapes, tmp_path / "run", **options)
    with pytest.raises(Interrupted, match=r"continue with --resume") as caught:
        train_bundle(wanted, StopAfter(batches))
    assert caught.value.exit_code == 130
    result = train_bundle(replace(wanted, resume=True))
    assert_same_run(tmp_path / "run", folder)
    assert result.metrics == load_bundle(folder / "bundle").metrics["val"]


def test_interrupted_again_and_again(straight, shapes, tmp_path):
    folder, options = straight
    wanted = config(shapes, tmp_path / "run", **options)
    for attempt in range(30):
        try:
            train_bundle(replace(wanted, resume=attempt > 0), StopAfter(2, signal.SIGTERM))
        except Interrupted:
            continue
        break
    assert 5 <= attempt < 30
    assert_same_run(tmp_path / "run", folder)


def test_a_finished_run_can_be_resumed_without_harm(shapes, tmp_path):
    train_bundle(config(shapes, tmp_path / "run", epochs=1))
    before = load_bundle(tmp_path / "run" / "bundle")
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    train_bundle(config(shapes, tmp_path / "run", epochs=1, resume=True))
    after = load_bundle(tmp_path / "run" / "bundle")
    assert all(torch.equal(after.state_dict[name], value) for name, value in before.state_dict.items())
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == metrics


def test_resume_needs_no_other_option(shapes, tmp_path):
    with pytest.raises(Interrupted):
        train_bundle(config(shapes, tmp_path / "run"), StopAfter(3))
    result = train_bundle(TrainConfig(output=str(tmp_path / "run"), resume=True))
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl")) == 3
    assert result.bundle == tmp_path / "run" / "bundle"


def test_torchrun_restarting_a_command_continues_its_run(shapes, tmp_path, monkeypatch):
    """The command line says which options were given, and among them is no --resume."""
    given = ("data", "output")
    with pytest.raises(Interrupted):
        train_bundle(config(shapes, tmp_path / "run"), StopAfter(3), said=given)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    train_bundle(config(shapes, tmp_path / "run"), said=given)
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl")) == 3


def test_a_run_that_left_nothing_does_not_keep_its_folder(shapes, tmp_path, monkeypatch):
    def failing(self, *_):
        raise TrainingError("the loss became nan")

    monkeypatch.setattr(TrainingLoop, "_train_epoch", failing)
    with pytest.raises(TrainingError):
        train_bundle(config(shapes, tmp_path / "run"))
    monkeypatch.undo()
    train_bundle(config(shapes, tmp_path / "run", epochs=1))
    with pytest.raises(UsageError, match="holds a run already"):
        train_bundle(config(shapes, tmp_path / "run", epochs=1))


def test_resume_of_a_new_folder_starts_a_run(shapes, tmp_path):
    train_bundle(config(shapes, tmp_path / "run", epochs=1, resume=True))
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl")) == 1


def test_resume_refuses_other_options_and_other_data(shapes, tmp_path):
    with pytest.raises(Interrupted):
        train_bundle(config(shapes, tmp_path / "run"), StopAfter(3))
    with pytest.raises(UsageError, match="learning_rate"):
        train_bundle(config(shapes, tmp_path / "run", resume=True, learning_rate=0.5))
    from shapes import write_shapes

    other = write_shapes(tmp_path / "other", {"train": 3, "val": 1})
    with pytest.raises(TrainingError, match="data has changed"):
        train_bundle(config(other, tmp_path / "run", resume=True))


def test_resume_where_the_kernels_cannot_be_had_goes_on_and_says_so(shapes, tmp_path, monkeypatch):
    if preparation.reason_without():
        pytest.skip(f"no kernels here: {preparation.reason_without()}")
    wanted = config(shapes, tmp_path / "run", kernels="yes")
    with pytest.raises(Interrupted):
        train_bundle(wanted, StopAfter(3))
    monkeypatch.setattr(preparation, "reason_without", lambda _: "there is no C compiler (gcc)")
    messages = []
    observer = Silent()
    observer.message = messages.append
    train_bundle(TrainConfig(output=str(tmp_path / "run"), resume=True), observer)
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl")) == 3
    assert any("without compiled kernels" in text and "no C compiler" in text for text in messages)
    with pytest.raises(UsageError, match="kernels yes cannot be had: there is no C compiler"):
        train_bundle(config(shapes, tmp_path / "other", kernels="yes"))


DAMAGE = ["cut", "text", "empty", "flipped", "lost", "json cut", "json text", "json value", "json list"]


def damage_checkpoint(path, damage):
    """Harm the checkpoint whose JSON is at `path`."""
    weights = path.with_suffix(".safetensors")
    data, text = weights.read_bytes(), path.read_text()
    if damage == "cut":
        weights.write_bytes(data[: len(data) // 2])
    elif damage == "text":
        weights.write_text("no checkpoint")
    elif damage == "empty":
        weights.write_bytes(b"")
    elif damage == "flipped":
        weights.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    elif damage == "lost":
        weights.unlink()
    elif damage == "json cut":
        path.write_text(text[: len(text) // 2])
    elif damage == "json text":
        path.write_bytes(b"\xff\xfe no json")
    elif damage == "json value":
        path.write_text(text.replace('"step": ', '"step": 1'))
    else:
        path.write_text("[]")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_said_and_the_one_before_it_taken(shapes, tmp_path, damage, one_epoch):
    class Listening(Silent):
        heard = ""

        def message(self, text):
            self.heard += text

    folder = tmp_path / "run"
    shutil.copytree(one_epoch, folder)
    wanted = config(shapes, one_epoch, epochs=2, checkpoint_steps=4, resume=True)
    wanted = replace(wanted, output=str(folder))
    newest, *older = list_checkpoints(folder / CHECKPOINT_FOLDER)
    assert older
    damage_checkpoint(newest, damage)
    observer = Listening()
    train_bundle(wanted, observer)
    if not damage.startswith("json"):  # what is no description is no checkpoint
        assert "continuing from the checkpoint before it" in observer.heard
    train_bundle(config(shapes, tmp_path / "straight", epochs=2))
    assert_same_run(folder, tmp_path / "straight")


@pytest.fixture(scope="module")
def one_epoch(shapes, tmp_path_factory):
    """A run of two epochs that was stopped in the second, with two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Interrupted):
        train_bundle(config(shapes, folder, epochs=2, checkpoint_steps=4), StopAfter(7))
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_without_an_intact_checkpoint_there_is_a_clear_error(tmp_path, damage, one_epoch):
    folder = tmp_path / "run"
    shutil.copytree(one_epoch, folder)
    for path in list_checkpoints(folder / CHECKPOINT_FOLDER):
        damage_checkpoint(path, damage)
    with pytest.raises(TrainingError, match=r"no usable checkpoint is left; remove .*checkpoints") as caught:
        train_bundle(TrainConfig(output=str(folder), resume=True))
    assert "\n" not in str(caught.value)


def test_long_runs_are_saved_within_the_epoch(shapes, tmp_path):
    class Crash(Exception):  # noqa: N818
        pass

    class Crashing(Silent):
        left = 4

        def batch_done(self, images, loss):
            self.left -= 1
            if self.left == 0:
                raise Crash

    with pytest.raises(Crash):
        train_bundle(config(shapes, tmp_path / "run", checkpoint_seconds=0.0), Crashing())
    train_bundle(config(shapes, tmp_path / "run", resume=True))
    train_bundle(config(shapes, tmp_path / "straight"))
    assert_same_run(tmp_path / "run", tmp_path / "straight")


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from inception.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def command(shapes, folder, *more: str) -> list[str]:
    options = [
        "--width",
        "0.05",
        "--epochs",
        "3",
        "--batch-size",
        "10",
        "--precision",
        "float32",
        "--device",
        "cpu",
    ]
    return [sys.executable, "-c", SCRIPT, "train", str(shapes), "--output", str(folder), *options, *more]


def wait_for(path, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.parametrize("moment", [0.3])
def test_a_killed_run_resumes_and_ends_the_same(shapes, tmp_path, moment):
    process = subprocess.Popen(
        command(shapes, tmp_path / "run"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(tmp_path / "run" / "metrics.jsonl")
    time.sleep(moment)
    process.kill()
    process.wait()
    resumed = subprocess.run(
        command(shapes, tmp_path / "run", "--resume"), capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    train_bundle(config(shapes, tmp_path / "straight"))
    assert_same_run(tmp_path / "run", tmp_path / "straight")


def test_ctrl_c_saves_says_how_to_go_on_and_exits_130(shapes, tmp_path):
    process = subprocess.Popen(
        command(shapes, tmp_path / "run", "--epochs", "500"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "run" / CHECKPOINT_FOLDER / "00001-0000000.json")
    process.send_signal(signal.SIGINT)
    output, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert output == ""
    assert "continue with --resume" in messages
    assert "Traceback" not in messages
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["epoch"] == 1


def test_a_second_signal_acts_as_ever(request):
    # A shell that starts the tests in the background has them ignore it.
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), stop_on_signals() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_are_put_back_and_other_threads_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    seen = []

    def work():
        with stop_on_signals() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


def test_a_metrics_line_cut_off_by_a_crash_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "train_loss": 2.0}\n{"epoch": 2, "tr')
    assert read_rows(tmp_path / "metrics.jsonl") == [{"epoch": 1, "train_loss": 2.0}]
    assert read_rows(tmp_path / "nowhere") == []
    log = MetricsLog(tmp_path, keep_epochs=1)
    log.add({"epoch": 2, "train_loss": 1.0})
    log.close()
    assert [row["epoch"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2]
    assert os.path.getsize(tmp_path / "curves.png") > 1000  # noqa: PTH202


def test_options_said_anew_count_even_if_they_are_the_default(shapes, tmp_path):
    first = config(shapes, tmp_path / "run", epochs=1, workers=4, checkpoint_seconds=5.0)
    train_bundle(first)
    again = TrainConfig(output=str(tmp_path / "run"), resume=True)
    kept = prepare(again, Silent(), said=["output", "resume"]).config
    assert (kept.workers, kept.checkpoint_seconds) == (4, 5.0)
    anew = prepare(again, Silent(), said=["output", "resume", "workers"]).config
    assert (anew.workers, anew.checkpoint_seconds) == (2, 5.0)
    assert prepare(again, Silent()).config.workers == 4
    with pytest.raises(UsageError, match="was started with width"):
        prepare(again, Silent(), said=["width"])


def test_many_unreadable_images_leave_a_checkpoint_that_can_be_read(shapes, tmp_path):
    """Long names that no JSON writes as they are, and texts full of marks that could stand between values."""
    train_bundle(config(shapes, tmp_path / "run", epochs=1))
    folder = tmp_path / "run" / "checkpoints"
    [path, *_] = list_checkpoints(folder)
    for name in ("图" * 80 + "{}.jpg", "a, b, c, d, e, f, g, {}.jpg"):
        unreadable = {name.format(index): f"{name.format(index)} is no image" for index in range(1500)}
        content = json.loads(path.read_text())
        content["progress"] = Progress(epoch=1, unreadable=unreadable).to_dict()
        content.pop("sha256")
        path.write_text(json.dumps({**content, "sha256": checkpoint._checksum(content)}, indent=1))
        assert read_config_of(folder)["epochs"] == 1
        assert len(content["progress"]["unreadable"]) > 100


def test_a_loss_that_was_not_finite_is_null_on_disk(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.add({"epoch": 1, "train_loss": float("nan"), "train_top1": 0.5, "recipe": "x"})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["train_loss"] is None
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert row["train_loss"] != row["train_loss"]  # a NaN again
    assert row["train_top1"] == 0.5
    MetricsLog(tmp_path, 1).close()
    assert (tmp_path / "metrics.jsonl").read_text() == text
