"""Files that are no weights are named for what they are, and weights are known by their content."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from writers import number, text, write_caffe, write_graph

from inception.errors import UsageError, WeightsError
from inception.nets.registry import build_network
from inception.weights.formats.recognize import read_foreign
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
        (gzip.compress(b"x", mtime=0), "gzip"),
        (packed(), "tar archive"),
        (b"\xfd7zXZ\x00rest", "unxz"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "is XML"),
        (b'{"message": "Not Found"}', "is JSON"),
        (b'{"metadata": {}, "weight_map": {}}', "in several files"),
        (b'model_checkpoint_path: "model-5"', "list of TensorFlow checkpoints"),
        (b'name: "GoogleNet"\nlayer {\n  name: "data"\n}', "prototxt"),
        (b"import torch\n", r"is text \('import torch'\)"),
        ("模型".encode() * 200, "is text"),
        (b"\x93NUMPY\x01\x00", "NumPy array"),
        (b"\x18\x00\x00\x00TFL3rest", "TensorFlow Lite"),
        (number(1, 1) + text(2, b"\x0a\x00"), "SavedModel"),
        (number(1, 4) + text(2, b"\x0a\x00") + text(500, b"\x0a\x00"), "Core ML"),
        (number(1, 500) + text(2, "net_iter_500.caffemodel") + text(3, b"\x2a\x00"), "Caffe's solver"),
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


def archive(*members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for member in members:
            file.writestr(member, b"x")
    return stream.getvalue()


@pytest.mark.parametrize(
    "members, text",
    [
        (("m/saved_model.pb", "m/variables/variables.index"), "SavedModel"),
        (("p/serialized_exported_program.json",), "exported program"),
        (("m/.data/extern_modules",), "torch.package"),
        (("b/bundle.json", "b/model.safetensors"), "is a bundle already"),
        (("a.npy", "b.npy"), "npz"),
        (("weights/model.pth",), "archive without weights"),
    ],
)
@pytest.mark.parametrize("ending", ["pth", "zip", "keras"])
def test_archives_that_are_no_weights(tmp_path, members, text, ending):
    (tmp_path / f"w.{ending}").write_bytes(archive(*members))
    with pytest.raises(WeightsError, match=text):
        import_weights(tmp_path / f"w.{ending}", "lenet5")


ARRAYS = {f"layer{i}/weights": np.ones((3, 4), np.float32) for i in range(3)}
LAYERS = [(name, "Convolution", [value]) for name, value in ARRAYS.items()]


def onnx_file(path):
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(value[..., None, None], name) for name, value in ARRAYS.items()]
    nodes = [onnx.helper.make_node("Conv", ["x", name], [f"y{i}"]) for i, name in enumerate(ARRAYS)]
    graph = onnx.helper.make_graph(nodes, "g", [], [], tensors)
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())


def hdf5_file(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, value in ARRAYS.items():
            file[name] = value


FILES = {
    "onnx": onnx_file,
    "graph": lambda path: write_graph(path, ARRAYS),
    "caffe": lambda path: write_caffe(path, LAYERS),
    "caffe, older": lambda path: write_caffe(path, LAYERS, legacy=True),
    "keras": hdf5_file,
}


@pytest.mark.parametrize("ending", ["pth", "h5", "pb", "onnx", "caffemodel", "ckpt", "bin", "zip", "model"])
@pytest.mark.parametrize("kind", FILES)
def test_other_tools_files_under_another_ending(tmp_path, kind, ending):
    path = tmp_path / f"w.{ending}"
    FILES[kind](path)
    foreign = read_foreign(path)
    assert foreign.format == kind.partition(",")[0]
    assert len(foreign.tensors) == len(ARRAYS)


@pytest.mark.parametrize(
    "names, text",
    [
        (["saved_model.pb", "variables.index"], "SavedModel"),
        (["bundle.json", "model.safetensors"], "is a bundle already"),
        ([".metadata", "__0_0.distcp"], "dcp_to_torch"),
        (["config.json", "pytorch_model.bin"], "give one of those in it: pytorch_model.bin"),
        (["readme.md"], "there are no weights in it"),
    ],
)
def test_folders_are_named_for_what_they_are(tmp_path, names, text):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=text):
        import_weights(tmp_path, "lenet5")
