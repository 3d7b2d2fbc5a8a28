"""Small files that commands read beside data and weights: pipes do not hang them, giants are not read."""

import os
import time

import pytest

from inception.errors import DataError, InceptionError, UsageError, WeightsError
from inception.files import read_at_most
from inception.train.log import read_rows
from inception.weights.formats.recognize import read_foreign

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")


def pipe(path):
    os.mkfifo(path)
    return path


def giant(path, head: bytes = b"["):
    with path.open("wb") as stream:
        stream.write(head)
        stream.truncate(1 << 40)
    return path


@pytest.fixture(autouse=True)
def _at_once():
    start = time.perf_counter()
    yield
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("make", [pipe, giant])
def test_metrics_beside_a_bundle(tmp_path, make):
    assert read_rows(make(tmp_path / "metrics.jsonl")) == []


@pytest.mark.parametrize("make", [pipe, giant])
def test_the_class_list_of_shards(tmp_path, make):
    from inception.data.webdataset import _class_names

    path = make(tmp_path / "classes.txt")
    if make is pipe:
        assert _class_names(tmp_path) == ()
    else:
        with pytest.raises(DataError, match="more than"):
            _class_names(tmp_path)
    assert path.exists()


@pytest.mark.parametrize("make", [pipe, giant])
def test_the_labels_and_the_preprocessing_given_to_import(tmp_path, make):
    from inception.weights.importer import _label_lines, _preprocess_beside
    from inception.weights.preprocessing import _named

    with pytest.raises(UsageError, match=r"there is no label file|more than"):
        _label_lines(make(tmp_path / "labels.txt"))
    with pytest.raises(UsageError, match=r"takes a file or|more than"):
        _named(str(make(tmp_path / "preprocess.json")))
    make(tmp_path / "config.json")
    assert _preprocess_beside(tmp_path / "weights.pth") is None


@pytest.mark.parametrize("name", ["token", "config"])
def test_what_the_user_names_may_be_a_pipe_but_not_endless(tmp_path, name):
    from inception.cli.serve import read_token
    from inception.train.config import read_config

    read = {"token": read_token, "config": read_config}[name]
    with pytest.raises(UsageError):
        read(giant(tmp_path / name))
    with pytest.raises(ValueError, match="more than 10 bytes"):
        read_at_most(tmp_path / name, 10)


@pytest.mark.parametrize("make", [pipe, giant])
def test_the_checkpoint_of_a_run(tmp_path, make):
    from inception.train.checkpoint import _read_json

    with pytest.raises((ValueError, InceptionError), match=r"not a file|more than"):
        _read_json(make(tmp_path / "00001-0000001.json"))


@pytest.mark.parametrize("suffix", [".pth", ".onnx", ".caffemodel", ".pb", ".safetensors", ".keras"])
@pytest.mark.parametrize("head", [b"", b"\x08\x07", b"\x80\x02", b"PK\x03\x04"])
def test_sparse_weights(tmp_path, suffix, head):
    with pytest.raises(WeightsError, match=r"begins with zeros|can need") as caught:
        read_foreign(giant(tmp_path / f"weights{suffix}", head))
    assert "\n" not in str(caught.value)
    small = tmp_path / f"small{suffix}"
    with small.open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(WeightsError, match="begins with zeros"):
        read_foreign(small)
