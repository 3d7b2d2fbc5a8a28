"""Graphs written layer by layer answer as the networks do, in two independent runtimes."""

import numpy as np
import pytest
import torch
from torch import nn

from inception.data.preprocess import Preprocess
from inception.nets.registry import build_network
from inception.runtime import rewrites
from inception.runtime.onnx_graph import UnsupportedLayerError, to_onnx
from inception.runtime.timing import probe_images

onnx = pytest.importorskip("onnx", reason="needs the extra `runtime`")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `runtime`")

# Between them: LRN in both constants, SAME padding, forks, average pools, residuals, hidden layers, groups.
NETWORKS = {
    "googlenet": {"stem": "small"},
    "googlenet_5h": {"stem": "small", "padding": "same"},
    "googlenet_bn": {"stem": "small", "padding": "floor"},
    "googlenet_tv": {"stem": "small"},
    "inception_v2": {"stem": "small"},
    "inception_v3": {"stem": "small", "count_include_pad": True},
    "inception_v4": {"stem": "small", "batch_norm_scale": False},
    "inception_resnet_v2": {"stem": "small"},
    "lenet5": {"in_chans": 3, "width": 1.0},
    "nin": {},
    "alexnet": {"width": 0.25},
}


def make(name: str):
    torch.manual_seed(0)
    options = {"num_classes": 6, "width": 0.1, **NETWORKS[name]}
    network = build_network(name, **options).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2.0)
    side = 32 if options.get("stem") == "small" else network.image_size
    return network, (network.in_chans, side, side)


def run(model: bytes, array: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": array})


def assert_close(found, expected):
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("response_norm", ["banded", "operator"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_graph_gives_its_logits(name, response_norm):
    network, shape = make(name)
    x = torch.randn(2, *shape)
    with torch.no_grad():
        expected = network(x).numpy()
    [found] = run(to_onnx(network, shape, "float32", response_norm=response_norm), x.numpy())
    assert expected.std() > 0
    assert_close(found, expected)


@pytest.mark.parametrize("name", ["googlenet_5h", "googlenet_tv", "inception_v3", "inception_resnet_v2"])
def test_rewritten_graphs_read_pixels(name):
    network, shape = make(name)
    preprocess = Preprocess(height=shape[1], width=shape[2])
    pixels = probe_images(shape, 3)
    with torch.no_grad():
        expected = network(preprocess.normalize(torch.from_numpy(pixels))).numpy()
    folded = rewrites.fold_residual_scale(rewrites.fold_batch_norm(network))
    folded = rewrites.merge_siblings(rewrites.swap_average_pools(folded))
    module = rewrites.space_to_depth(rewrites.fold_normalization(folded, preprocess), shape[1:])
    model = to_onnx(module, shape)
    assert_close(run(model, pixels)[0], expected)
    assert_close(run(model, pixels[:1])[0], expected[:1])


def test_openvino_reads_the_same_graph():
    openvino = pytest.importorskip("openvino", reason="needs the extra `runtime`")
    network, shape = make("googlenet")
    x = torch.randn(1, *shape)
    with torch.no_grad():
        expected = network(x).numpy()
    model = openvino.Core().read_model(to_onnx(network, shape, "float32"))
    compiled = openvino.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    assert_close(compiled(x.numpy())[0], expected)


def test_blocks_of_pixels_in_the_graph():
    torch.manual_seed(0)
    network = build_network("inception_v3", num_classes=4, width=0.05, aux_logits=False).eval()
    pixels = probe_images((3, 99, 101), 1)
    preprocess = Preprocess(height=99, width=101)
    with torch.no_grad():
        expected = network(preprocess.normalize(torch.from_numpy(pixels))).numpy()
    folded = rewrites.fold_normalization(rewrites.fold_batch_norm(network), preprocess)
    [found] = run(to_onnx(rewrites.space_to_depth(folded, (99, 101)), (3, 99, 101)), pixels)
    assert_close(found, expected)


def test_probabilities_and_texts_are_stored():
    network, shape = make("googlenet_bn")
    model = to_onnx(network, shape, "float32", temperature=2.0, metadata={"labels": "[]"})
    logits, probabilities = run(model, np.zeros((2, *shape), np.float32))
    powers = np.exp(logits / 2.0)
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)
    assert [(item.key, item.value) for item in onnx.load_from_string(model).metadata_props] == [
        ("labels", "[]")
    ]


def test_merged_siblings_are_fewer_nodes():
    network, shape = make("googlenet_bn")
    folded = rewrites.fold_batch_norm(network)

    def count(module):
        nodes = onnx.load_from_string(to_onnx(module, shape, "float32")).graph.node
        return sum(node.op_type == "Conv" for node in nodes)

    assert (
        count(folded) - count(rewrites.merge_siblings(folded)) == 2 * 9
    )  # nine modules, three siblings each


@pytest.mark.parametrize("side", [28, 32, 45, 64])
def test_pools_of_unequal_windows(side):
    """LeNet-5 pools whatever map an image leaves to 5 x 5, and the windows need not be of one size."""
    torch.manual_seed(0)
    network = build_network("lenet5", num_classes=6, in_chans=3).eval()
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected = network(x).numpy()
    [found] = run(to_onnx(network, (3, side, side), "float32"), x.numpy())
    assert_close(found, expected)


def test_a_layer_without_an_exact_form_is_refused():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x)

    with pytest.raises(UnsupportedLayerError, match="has no ONNX form"):
        to_onnx(Odd(), (1, 4, 4), "float32")
