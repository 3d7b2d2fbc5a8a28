"""Files that are no weights are named for what they are, and weights are known by their content."""

import gzip
import io
import tarfile

import pytest
import safetensors.torch
import torch

from inception.errors import UsageError, WeightsError
from inception.nets.registry import build_network
from inception.weights.importer import import_weights

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"


def state():
    return build_network("lenet5", num_classes=4).state_dict()


def packed():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return stream.getvalue()


def cut():
    stream = io.BytesIO()
    torch.save(state(), stream)
    return stream.getvalue()[:2000]


@pytest.mark.parametrize("ending", ["pth", "safetensors", "h5", "pb", "onnx", "ckpt", "pth.tar"])
@pytest.mark.parametrize(
    "content, text",
    [
        (POINTER, "Git LFS pointer"),
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><p>Sign in", "HTML page"),
        (gzip.compress(b"x"), "gzip"),
        (packed(), "tar archive"),
        (cut(), "cut short"),
    ],
)
def test_files_that_are_no_weights(tmp_path, content, text, ending):
    path = tmp_path / f"w.{ending}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=text):
        import_weights(path, "lenet5")


@pytest.mark.parametrize("zip_form", [True, False])
@pytest.mark.parametrize("ending", ["best.pth.tar", "last.ckpt", "w.bin", "w", "w.model", "w.safetensors"])
def test_torch_files_whatever_their_ending(tmp_path, ending, zip_form):
    torch.save(state(), tmp_path / ending, _use_new_zipfile_serialization=zip_form)
    assert import_weights(tmp_path / ending, "lenet5")[1].complete


def test_safetensors_under_another_ending(tmp_path):
    safetensors.torch.save_file(state(), tmp_path / "w.pth")
    assert import_weights(tmp_path / "w.pth", "lenet5")[0].provenance["format"] == "safetensors"


def test_torchscript_is_named(tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(WeightsError, match="TorchScript archive"):
        import_weights(tmp_path / "w.pt", "lenet5")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_refused_by_the_tensors_name(tmp_path, value):
    weights = state()
    weights["fc.bias"][0] = value
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"fc\.bias holds NaN or infinity"):
        import_weights(tmp_path / "w.pth", "lenet5")
    assert import_weights(tmp_path / "w.pth", "lenet5", allow_nonfinite=True)[1].complete


def test_ema_needs_a_pytorch_checkpoint(tmp_path):
    safetensors.torch.save_file(state(), tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="no PyTorch checkpoint"):
        import_weights(tmp_path / "w.safetensors", "lenet5", ema=True)
