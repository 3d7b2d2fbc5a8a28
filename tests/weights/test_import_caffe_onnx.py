"""Caffe's and ONNX's files against ONNX Runtime: real topologies, random weights."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from peers import TOLERANCE, difference, images, liven, logits
from writers import write_caffe

from inception.errors import UsageError, WeightsError
from inception.weights.formats.caffe import read_caffe
from inception.weights.formats.onnx import read_onnx
from inception.weights.importer import import_weights

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from light_graphs import (  # noqa: E402 - it needs both
    fill_with_random_weights,
    graph_logits,
    light_graph,
    use_ceil_pools,
)


def count_the_border(model):
    """Caffe counts the zeros of the border in average pools."""
    for node in model.graph.node:
        if node.op_type == "AveragePool":
            node.attribute.append(onnx.helper.make_attribute("count_include_pad", 1))


def caffe_layers(values):
    """The weights as Caffe keeps them; statistics with a factor, as Caffe accumulates them."""
    layers = {}
    for name, value in values.items():
        layer, kind = name.removesuffix("_0").rsplit("_", 1)
        layers.setdefault(layer, {})[kind] = value
    result = []
    for layer, parts in layers.items():
        if layer.endswith("/bn"):
            factor = np.float32([4.0])
            # Caffe's BatchNorm has no scale and shift; those of the graph go into the Scale layer behind it.
            result.append((layer, "BatchNorm", [parts["mean"] * 4, parts["var"] * 4, factor]))
        elif layer.endswith("/bn/sc"):
            norm = layers[layer.removesuffix("/sc")]
            scale, shift = norm["scale"] * parts["w"], norm["bias"] * parts["w"] + parts["b"]
            result.append((layer, "Scale", [scale, shift]))
        else:
            kind = "InnerProduct" if layer.startswith(("loss3", "fc")) else "Convolution"
            weight = parts["w"].reshape(parts["w"].shape[-2:]) if kind == "InnerProduct" else parts["w"]
            result.append((layer, kind, [weight, *([parts["b"]] if "b" in parts else [])]))
    return result


@pytest.fixture(scope="module")
def googlenet():
    model = light_graph("light_inception_v1")
    values = fill_with_random_weights(model, np.random.default_rng(0))
    use_ceil_pools(model)
    x = images(224, scale=60.0)
    return model, values, x, graph_logits(model, x.numpy())


@pytest.mark.parametrize("legacy", [False, True], ids=["layer", "layers"])
def test_googlenet_as_a_caffemodel(googlenet, tmp_path, legacy):
    _, values, x, expected = googlenet
    path = write_caffe(tmp_path / "bvlc_googlenet.caffemodel", caffe_layers(values), legacy=legacy)
    bundle, report = import_weights(path, "googlenet")
    assert report.unexpected == ()
    assert bundle.provenance["tool"] == "caffe"
    preprocess = bundle.preprocess
    assert (preprocess.color, preprocess.mean) == ("BGR", (104.0, 117.0, 123.0))
    assert bundle.labels[0] == "tench"
    assert difference(logits(bundle, x), expected) < TOLERANCE


def test_googlenet_as_onnx(googlenet, tmp_path):
    model, _, x, expected = googlenet
    onnx.save(model, tmp_path / "googlenet.onnx")
    bundle, report = import_weights(tmp_path / "googlenet.onnx", "googlenet")
    assert report.unexpected == ()
    assert (bundle.provenance["tool"], bundle.provenance["format"]) == ("caffe", "onnx")
    assert difference(logits(bundle, x), expected) < TOLERANCE


def test_googlenet_as_onnx_with_its_weights_beside_it(googlenet, tmp_path):
    model, _, x, expected = googlenet
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save(
        copy, tmp_path / "g.onnx", save_as_external_data=True, location="g.onnx.data", size_threshold=64
    )
    bundle, _ = import_weights(tmp_path / "g.onnx", "googlenet")
    assert difference(logits(bundle, x), expected) < TOLERANCE
    (tmp_path / "g.onnx.data").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"g\.onnx\.data are missing"):
        read_onnx(tmp_path / "g.onnx")


def test_weights_outside_the_folder_are_not_read(googlenet, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(1 << 16))
    (tmp_path / "models").mkdir()
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[8, 8, 1, 1], data_location=1)
    for location in ("../secret", str(tmp_path / "secret"), ""):
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=location)
        graph = onnx.helper.make_graph([], "g", [], [], [tensor])
        (tmp_path / "models" / "x.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
        with pytest.raises(WeightsError, match="not a file beside it"):
            read_onnx(tmp_path / "models" / "x.onnx")


@pytest.fixture(scope="module")
def inception_v2():
    model = light_graph("light_inception_v2")
    values = fill_with_random_weights(model, np.random.default_rng(0))
    x = images(224)
    return model, values, x, graph_logits(model, x.numpy())


def test_inception_v2_as_onnx(inception_v2, tmp_path):
    model, _, x, expected = inception_v2
    onnx.save(model, tmp_path / "v2.onnx")
    bundle, report = import_weights(tmp_path / "v2.onnx", "inception_v2")
    assert report.unexpected == ()
    assert difference(logits(bundle, x), expected) < TOLERANCE


def test_inception_v2_as_a_caffemodel(inception_v2, tmp_path):
    model, values, x, _ = inception_v2
    count_the_border(model)
    expected = graph_logits(model, x.numpy())
    path = write_caffe(tmp_path / "v2.caffemodel", caffe_layers(values))
    bundle, report = import_weights(path, "inception_v2")
    assert report.unexpected == ()
    assert bundle.arguments["count_include_pad"] is True
    assert difference(logits(bundle, x), expected) < TOLERANCE


def test_alexnet_as_a_caffemodel_and_as_onnx(tmp_path):
    model = light_graph("light_bvlc_alexnet")
    values = fill_with_random_weights(model, np.random.default_rng(0))
    use_ceil_pools(model)
    x = images(224, scale=60.0)
    expected = graph_logits(model, x.numpy())
    onnx.save(model, tmp_path / "alexnet.onnx")
    write_caffe(tmp_path / "alexnet.caffemodel", caffe_layers(values), legacy=True)
    for file in ("alexnet.onnx", "alexnet.caffemodel"):
        bundle, report = import_weights(tmp_path / file, "alexnet")
        assert report.unexpected == ()
        assert bundle.preprocess.height == 227
        assert difference(logits(bundle, x), expected) < TOLERANCE


# Models that PyTorch exported


EXPORT = """
import sys, torch, torchvision
model = torchvision.models.googlenet(num_classes=7, aux_logits=False, init_weights=False)
model.load_state_dict(torch.load(sys.argv[1]))
torch.onnx.export(model.eval(), (torch.zeros(1, 3, 96, 96),), sys.argv[2], dynamo=sys.argv[3] == "dynamo")
"""


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_an_exported_googlenet_of_torchvision(tmp_path, exporter):
    if exporter == "dynamo":
        pytest.importorskip("onnxscript", reason="torch's present exporter needs onnxscript")
    theirs = torchvision.models.googlenet(num_classes=7, aux_logits=False, init_weights=False)
    liven(theirs)
    torch.save(theirs.state_dict(), tmp_path / "state.pth")
    arguments = [str(tmp_path / "state.pth"), str(tmp_path / "model.onnx"), exporter]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EXPORT, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    bundle, report = import_weights(tmp_path / "model.onnx", "googlenet_tv")
    assert report.unexpected == ()
    assert "layers matched by their order, not by name" in bundle.provenance["remarks"]
    assert not bundle.build().aux_taps
    x = images(96)
    assert difference(logits(bundle, x), theirs(x).detach()) < TOLERANCE


# What is no such file


def test_other_files_are_named_as_such(tmp_path):
    for name, read in (("x.caffemodel", read_caffe), ("x.onnx", read_onnx)):
        for content in (b"", b"just some text, long enough", bytes(100)):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(WeightsError, match=r"x\.(caffemodel|onnx)"):
                read(tmp_path / name)


def test_two_layers_of_one_name_are_refused(tmp_path):
    layers = [("conv1", "Convolution", [np.ones((1, 1, 1, 1), np.float32)])] * 2
    with pytest.raises(WeightsError, match=r"two layers that define conv1\.weight"):
        read_caffe(write_caffe(tmp_path / "x.caffemodel", layers))


def test_a_network_whose_caffe_form_is_not_known(tmp_path):
    layers = [("conv1", "Convolution", [np.ones((1, 1, 1, 1), np.float32)])]
    write_caffe(tmp_path / "x.caffemodel", layers)
    with pytest.raises(UsageError, match="not known as a caffe file, only as"):
        import_weights(tmp_path / "x.caffemodel", "inception_v4")
