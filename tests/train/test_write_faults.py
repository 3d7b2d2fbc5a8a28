"""Disks that are full, read-only or broken, and processes out of file descriptors: the old files survive."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from shapes import tiny_config

from inception.errors import BundleError, InceptionError, WriteError
from inception.files import atomic_directory, atomic_write_bytes
from inception.train.checkpoint import CHECKPOINT_FOLDER, list_checkpoints
from inception.train.interrupt import Interrupted
from inception.train.log import MetricsLog, Silent
from inception.train.run import train_bundle
from inception.weights.bundle import load_bundle, save_bundle

ERRORS = (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EMFILE, errno.EDQUOT)
POINTS = ("mkstemp", "write", "fsync", "rename")


def break_at(monkeypatch, point: str, number: int, after: int = 0) -> list[int]:
    """Let the system call of `point` fail with `number` after so many successes; counts its calls."""
    calls = []

    def failing(real):
        def call(*arguments, **options):
            calls.append(1)
            if len(calls) > after:
                raise OSError(number, os.strerror(number))
            return real(*arguments, **options)

        return call

    if point == "mkstemp":
        monkeypatch.setattr(tempfile, "mkstemp", failing(tempfile.mkstemp))
        monkeypatch.setattr(tempfile, "mkdtemp", failing(tempfile.mkdtemp))
    elif point == "write":
        monkeypatch.setattr(Path, "write_bytes", failing(Path.write_bytes))
        monkeypatch.setattr(safetensors.torch, "save_file", failing(safetensors.torch.save_file))
    elif point == "fsync":
        monkeypatch.setattr(os, "fsync", failing(os.fsync))
    else:
        monkeypatch.setattr(Path, "replace", failing(Path.replace))
        monkeypatch.setattr(Path, "rename", failing(Path.rename))
    return calls


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("point", POINTS)
def test_a_file_that_cannot_be_written_is_said_and_stays(tmp_path, monkeypatch, point, number):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    break_at(monkeypatch, point, number)
    with pytest.raises(WriteError, match=rf"cannot write .*file: {os.strerror(number)}.*is intact") as caught:
        atomic_write_bytes(path, b"new")
    assert isinstance(caught.value, InceptionError)
    assert (caught.value.errno, caught.value.exit_code) == (number, 1)
    assert contents(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("point, after", [("mkstemp", 0), ("fsync", 0), ("fsync", 1), ("rename", 0)])
def test_a_folder_that_cannot_be_written_stays_too(tmp_path, monkeypatch, point, after, number):
    path = write_folder(tmp_path / "folder", b"old")
    break_at(monkeypatch, point, number, after)
    with pytest.raises(WriteError, match="cannot write"):
        write_folder(path, b"new")
    assert contents(tmp_path) == {"folder/file": b"old"}


def test_a_folder_that_was_moved_aside_is_put_back(tmp_path, monkeypatch):
    path, real = write_folder(tmp_path / "folder", b"old"), Path.rename

    def into_place_fails(self, target):
        if self.name.endswith(".tmp"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", into_place_fails)
    with pytest.raises(WriteError, match="cannot write"):
        write_folder(path, b"new")
    assert contents(tmp_path) == {"folder/file": b"old"}


def write_folder(path: Path, content: bytes) -> Path:
    with atomic_directory(path) as folder:
        (folder / "file").write_bytes(content)
    return path


def test_a_folder_without_permission_or_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"Not a directory|File exists"):
        atomic_write_bytes(tmp_path / "file" / "inner", b"")


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("form", ["bundle", "bundle.zip"])
def test_a_bundle_that_cannot_be_written_leaves_the_old_one(tiny_bundle, tmp_path, monkeypatch, form, number):
    path = tmp_path / form
    save_bundle(tiny_bundle, path)
    before = contents(tmp_path)
    with monkeypatch.context() as patched:
        break_at(patched, "fsync", number)
        with pytest.raises(BundleError, match=rf"cannot write the bundle to .*: {os.strerror(number)}"):
            save_bundle(tiny_bundle, path)
    assert contents(tmp_path) == before
    assert torch.equal(load_bundle(path).state_dict["fc.bias"], tiny_bundle.state_dict["fc.bias"])


class StopAfterAnEpoch(Silent):
    def epoch_done(self, row):
        signal.raise_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def half(shapes, tmp_path_factory):
    """A run of one epoch out of two, stopped after it."""
    folder = tmp_path_factory.mktemp("half") / "run"
    with pytest.raises(Interrupted):
        train_bundle(tiny_config(shapes, folder), StopAfterAnEpoch())
    return folder


@pytest.mark.parametrize(
    "point, number, after",
    [
        ("mkstemp", errno.EMFILE, 1),
        ("write", errno.ENOSPC, 2),
        ("fsync", errno.EIO, 5),
        ("rename", errno.EROFS, 2),
    ],
)
def test_a_run_that_cannot_write_says_so_and_continues_later(
    half, shapes, tmp_path, monkeypatch, point, number, after
):
    folder = tmp_path / "run"
    shutil.copytree(half, folder)
    wanted = tiny_config(shapes, folder, resume=True, checkpoint_steps=2)
    with monkeypatch.context() as patched:
        break_at(patched, point, number, after)
        with pytest.raises(
            (WriteError, BundleError), match=rf"cannot write .*{os.strerror(number)}"
        ) as caught:
            train_bundle(wanted)
    assert "\n" not in str(caught.value)
    assert list_checkpoints(folder / CHECKPOINT_FOLDER)
    result = train_bundle(wanted)
    straight = train_bundle(tiny_config(shapes, tmp_path / "straight"))
    ours, theirs = load_bundle(result.bundle), load_bundle(straight.bundle)
    assert all(torch.equal(ours.state_dict[name], value) for name, value in theirs.state_dict.items())
    assert not [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".old"))]


def test_events_that_cannot_be_written_are_said(tmp_path):
    class Broken:
        def add_scalar(self, *arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self):
            pass

    log = MetricsLog(tmp_path, -1)
    log._board = Broken()
    with pytest.raises(WriteError, match=r"cannot write .*tensorboard: No space left"):
        log.add({"epoch": 1, "train_loss": 1.0})


REAL_LIMITS = """
import resource, sys, torch
from pathlib import Path
from inception.errors import WriteError
from inception.train.checkpoint import save_checkpoint
from inception.train.ranks import ALONE
from inception.train.state import Progress, TrainingState
from inception.train.optimizer import AveragedWeights
kind, folder = sys.argv[1], Path(sys.argv[2])
network = torch.nn.Linear(500, 500)
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
average = AveragedWeights(network, 0.9)
state = TrainingState(network, optimizer, average, Progress(batch=1), torch.device("cpu"), ALONE)
save_checkpoint(folder, state, {}, "", 2)
before = {path: path.read_bytes() for path in folder.iterdir()}
if kind == "size":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
else:
    used = len(list(Path("/proc/self/fd").iterdir())) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))
state.progress.batch = 2
try:
    save_checkpoint(folder, state, {}, "", 2)
except WriteError as error:
    print(error)
else:
    sys.exit("written all the same")
sys.stdout.flush()
if kind == "size":
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "kind, message", [("size", "File too large"), ("descriptors", "Too many open files")]
)
def test_limits_of_the_real_system(tmp_path, kind, message):
    done = subprocess.run(
        [sys.executable, "-c", REAL_LIMITS, kind, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert message in done.stdout
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["00000-0000001.json", "00000-0000001.safetensors"]
