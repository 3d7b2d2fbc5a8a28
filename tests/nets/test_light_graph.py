"""Conformance: Caffe's GoogLeNet, from the `onnx` wheel, with random weights, against ours with the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inception.nets.googlenet import TABLE_1
from inception.nets.network import Network, Plan
from inception.nets.rows import LrnConstants, Style

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CAFFE_STEM = {"conv1/7x7_s2": "conv1", "conv2/3x3_reduce": "conv2", "conv2/3x3": "conv3"}


def light_graph():
    path = Path(onnx.__file__).parent / "backend/test/data/light/light_inception_v1.onnx"
    if not path.is_file():
        pytest.skip("this onnx wheel ships no light_inception_v1.onnx")
    return onnx.load(path)


def fill_with_random_weights(model, generator) -> dict[str, np.ndarray]:
    """Give every weight and bias He-scaled random values; returned by their Caffe names.

    Large tensors are ConstantOfShape nodes in the shipped graph, small ones (biases) stored constants.
    """
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    shapes = {name: value.shape for name, value in stored.items() if name.endswith(("_w_0", "_b_0"))}
    for node in [node for node in model.graph.node if node.op_type == "ConstantOfShape"]:
        shapes[node.output[0]] = tuple(stored[node.input[0]])
        model.graph.node.remove(node)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in shapes]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    values = {}
    for name, shape in shapes.items():
        scale = (2 / np.prod(shape[1:])) ** 0.5 if name.endswith("_w_0") else 0.1
        values[name] = (generator.standard_normal(shape) * scale).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values[name], name))
    return values


def use_ceil_pools(model) -> None:
    """Caffe rounds pools up; the shipped graph rounds down because ONNX knew no ceil_mode before opset 10."""
    model.opset_import[0].version = 10
    for node in model.graph.node:
        if node.op_type == "MaxPool":
            node.attribute.append(onnx.helper.make_attribute("ceil_mode", 1))
        if node.op_type == "AveragePool":
            pads = next(attribute for attribute in node.attribute if attribute.name == "pads")
            pads.CopyFrom(onnx.helper.make_attribute("pads", [0, 0, 0, 0]))


def graph_logits(model, images: np.ndarray) -> np.ndarray:
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    del model.graph.output[:]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(gemm.output[0], onnx.TensorProto.FLOAT, None)
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"data_0": images})[0]


def our_name(caffe: str) -> str:
    layer, kind = caffe.rsplit("_", 2)[0], caffe.rsplit("_", 2)[1]
    suffix = {"w": "weight", "b": "bias"}[kind]
    if layer == "loss3/classifier":
        return f"fc.{suffix}"
    if layer in CAFFE_STEM:
        return f"{CAFFE_STEM[layer]}.conv.{suffix}"
    module, branch = layer.split("/")
    branch = branch if branch == "pool_proj" else f"b{branch}"
    return f"{module.replace('_', '')}.{branch}.conv.{suffix}"


def our_logits(values: dict[str, np.ndarray], images: np.ndarray, style: Style) -> np.ndarray:
    network = Network(Plan(rows=TABLE_1, style=style)).eval()
    state = {our_name(name): torch.from_numpy(value) for name, value in values.items()}
    state["fc.weight"] = state["fc.weight"].reshape(1000, 1024)
    network.load_state_dict(state, strict=True)
    with torch.no_grad():
        return network(torch.from_numpy(images)).numpy()


@pytest.fixture(scope="module", params=["ceil", "floor"])
def conformance(request):
    generator = np.random.default_rng(0)
    model = light_graph()
    values = fill_with_random_weights(model, generator)
    if request.param == "ceil":
        use_ceil_pools(model)
    # Pixels as Caffe's network gets them (0-255 less the mean): only at this scale does LRN matter.
    images = (generator.standard_normal((1, 3, 224, 224)) * 60).astype(np.float32)
    return values, images, graph_logits(model, images), Style(padding=request.param)


def relative(ours: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


def test_same_logits(conformance, record_property, capsys):
    values, images, expected, style = conformance
    assert len(values) == 116
    assert sum(value.size for value in values.values()) == 6_998_552
    ours = our_logits(values, images, style)
    largest, difference = np.abs(ours - expected).max(), relative(ours, expected)
    with capsys.disabled():
        print(
            f"\nlight_inception_v1, {style.padding} pools: max |difference| {largest:.2e} "
            f"on logits of scale {np.abs(expected).max():.2f} (relative {difference:.2e})"
        )
    record_property("relative_difference", difference)
    assert 1 < np.abs(expected).max() < 1000
    assert difference < 1e-5


@pytest.mark.parametrize(
    "wrong", [{"alpha": 1.1e-4}, {"alpha": 5e-4}, {"beta": 0.76}, {"size": 3}, {"k": 1.05}], ids=str
)
def test_wrong_normalisation_constants_would_be_seen(conformance, wrong):
    values, images, expected, style = conformance
    changed = replace(style, lrn=replace(LrnConstants(), **wrong))
    assert relative(our_logits(values, images, changed), expected) > 1e-3


def test_wrong_pools_would_be_seen(conformance):
    values, images, expected, style = conformance
    other = "floor" if style.padding == "ceil" else "ceil"
    assert relative(our_logits(values, images, replace(style, padding=other)), expected) > 1e-3
