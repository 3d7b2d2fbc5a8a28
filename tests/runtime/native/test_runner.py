"""The native engine against PyTorch in float64: single layers of any size, whole networks, all methods."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from inception.data.preprocess import Preprocess
from inception.errors import BundleError, UnsupportedLayerError
from inception.native import compiler
from inception.nets.registry import build_network
from inception.runtime.engines import MissingEngineError
from inception.runtime.forms import Form, graph_of, rewritten
from inception.runtime.native import runner as module
from inception.runtime.native.choosing import fastest_network
from inception.runtime.native.from_onnx import Network, read_graph
from inception.runtime.native.layers import PIXELS, WINOGRAD, Layer, Shape, shapes_of
from inception.runtime.native.runner import NativeRunner, native_files
from inception.runtime.plan import Plan
from inception.runtime.timing import probe_images
from inception.weights.bundle import Bundle

try:
    HAS_BFLOAT16 = bool(module.library().engine_has_bfloat16())
except MissingEngineError as error:
    pytest.skip(f"no native engine here: {error}", allow_module_level=True)

OUTPUTS = 20


def opened(network: Network, precision="float32", threads=2, together=1) -> NativeRunner:
    files = native_files(network, precision == "bfloat16", together)
    plan = Plan("native", precision, threads, 1)
    return NativeRunner(files["network.json"], files["network.weights"], plan)


class Maker:
    """A network around the layers under test: channels from the images before, every value read out after."""

    def __init__(self, seed: int, channels: int, height: int, width: int) -> None:
        self.random = np.random.default_rng(seed)
        self.pixels = Shape(3, height, width)
        self.kernels, self.biases, self.layers = {}, {}, []
        self.convolution(PIXELS, "begin", channels, (1, 1), relu=False)

    def convolution(self, source: str, output: str, channels: int, kernel: tuple[int, int], **more) -> None:
        layer = Layer("convolution", (source,), output, channels=channels, kernel=kernel, **more)
        inputs = self.shapes()[source].channels
        shape = (channels, inputs, *kernel)
        scale = 1 / np.sqrt(np.prod(shape[1:])) / (100 if source == PIXELS else 1)
        self.kernels[output] = (self.random.normal(size=shape) * scale).astype(np.float32)
        self.biases[output] = self.random.normal(size=channels).astype(np.float32) * 0.1
        self.layers.append(layer)

    def shapes(self):
        return shapes_of(tuple(self.layers), self.pixels)

    def network(self) -> Network:
        last = self.layers[-1].output
        self.convolution(last, "end", OUTPUTS, tuple(self.shapes()[last][1:]))
        return Network(tuple(self.layers), self.pixels, self.kernels, self.biases, None)

    def images(self, count: int) -> np.ndarray:
        return self.random.integers(0, 256, (count, *self.pixels), dtype=np.uint8)


def reference(network: Network, pixels: np.ndarray) -> np.ndarray:
    """In PyTorch, float64."""
    maps = {PIXELS: torch.from_numpy(pixels).double()}
    for layer in network.layers:
        x = maps[layer.source]
        if layer.kind == "convolution":
            top, left, bottom, right = layer.pads
            padded = F.pad(x, (left, right, top, bottom))
            kernel = torch.from_numpy(network.kernels[layer.output]).double()
            bias = torch.from_numpy(network.biases[layer.output]).double()
            y = F.conv2d(padded, kernel, bias, layer.stride)
            y = y if layer.added is None else y + maps[layer.added]
            y = y.relu() if layer.relu else y
        elif layer.kind == "max_pool":
            y = F.max_pool2d(x, layer.kernel, layer.stride, layer.pads[0], ceil_mode=layer.ceil_mode)
        elif layer.kind == "average_pool":
            y = F.avg_pool2d(
                x, layer.kernel, layer.stride, layer.pads[0], layer.ceil_mode, layer.count_include_pad
            )
        elif layer.kind == "response_norm":
            y = F.local_response_norm(x, layer.size, layer.alpha * layer.size, layer.beta, layer.offset)
        elif layer.kind == "concat":
            y = torch.cat([maps[name] for name in layer.inputs], dim=1)
        else:
            y = x.mean((2, 3), keepdim=True)
        maps[layer.output] = y
    return maps[network.layers[-1].output].flatten(1).numpy()


def assert_close(found, expected, tolerance=3e-6):
    scale = max(np.abs(expected).max(), 1e-3)
    assert np.abs(found - expected).max() / scale < tolerance


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
seeds = st.integers(0, 1000)


@given(
    st.data(),
    seeds,
    st.integers(1, 50),
    st.integers(1, 70),
    sizes,
    st.sampled_from([(1, 1), (2, 3), (3, 3), (5, 5), (1, 7), (7, 1), (3, 1), (1, 3), (4, 2)]),
    st.sampled_from([1, 2]),
)
@settings(deadline=None, max_examples=120)
def test_convolutions(data, seed, inputs, outputs, size, kernel, stride):
    pads = data.draw(st.tuples(*(st.integers(0, 3) for _ in range(4))))
    assume(size[0] + pads[0] + pads[2] >= kernel[0] and size[1] + pads[1] + pads[3] >= kernel[1])
    methods = ("direct", *(WINOGRAD.get(kernel, ()) if stride == 1 else ()))
    method = data.draw(st.sampled_from(methods))
    maker = Maker(seed, inputs, *size)
    maker.convolution(
        "begin", "middle", outputs, kernel, stride=(stride, stride), pads=pads, relu=True, method=method
    )
    network = maker.network()
    pixels = maker.images(3)
    threads, together = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    runner = opened(network, threads=threads, together=together)
    assert_close(runner(pixels), reference(network, pixels), 2e-5)


@given(
    seeds,
    sizes,
    st.integers(1, 40),
    st.sampled_from([2, 3, 5]),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(["max_pool", "average_pool", "counted"]),
)
@settings(deadline=None, max_examples=60)
def test_pools(seed, size, channels, kernel, stride, ceil_mode, kind):
    pad = kernel // 2 if stride == 1 else 0
    assume(min(size) + 2 * pad >= kernel)
    maker = Maker(seed, channels, *size)
    maker.layers.append(
        Layer(
            "average_pool" if kind == "counted" else kind,
            ("begin",),
            "middle",
            kernel=(kernel, kernel),
            stride=(stride, stride),
            pads=(pad,) * 4,
            ceil_mode=ceil_mode,
            count_include_pad=kind == "counted",
        )
    )
    network, pixels = maker.network(), maker.images(2)
    assert_close(opened(network, together=2)(pixels), reference(network, pixels), 2e-5)


@pytest.mark.parametrize("beta", [0.5, 0.75])
@pytest.mark.parametrize("size", [1, 3, 5, 11])
def test_response_norms(size, beta):
    maker = Maker(size, 37, 9, 7)
    maker.layers.append(
        Layer("response_norm", ("begin",), "middle", size=size, alpha=0.3, offset=1.5, beta=beta)
    )
    network, pixels = maker.network(), maker.images(2)
    assert_close(opened(network)(pixels), reference(network, pixels))


@pytest.mark.parametrize("channels", [3, 16, 20, 48])
def test_branches_of_any_width_are_joined(channels):
    """Parts that are no whole blocks, a branch within a branch, a map that is joined and read besides."""
    maker = Maker(1, 24, 12, 10)
    maker.convolution("begin", "left", channels, (1, 1), relu=True)
    maker.convolution("begin", "inner", 5, (3, 3), pads=(1, 1, 1, 1))
    maker.convolution("left", "right", 33, (5, 5), pads=(2, 2, 2, 2))
    maker.layers.append(Layer("concat", ("inner", "right"), "nested"))
    maker.layers.append(Layer("concat", ("left", "nested"), "joined"))
    maker.layers.append(Layer("max_pool", ("joined",), "pooled", kernel=(3, 3), stride=(2, 2)))
    network, pixels = maker.network(), maker.images(3)
    assert_close(opened(network, together=3)(pixels), reference(network, pixels))


@pytest.mark.parametrize("relu", [False, True])
def test_a_map_is_added_before_relu(relu):
    maker = Maker(2, 40, 11, 13)
    maker.convolution("begin", "branch", 24, (3, 3), pads=(1, 1, 1, 1), relu=True)
    maker.convolution("branch", "sum", 40, (1, 1), added="begin", relu=relu)
    network, pixels = maker.network(), maker.images(2)
    assert_close(opened(network)(pixels), reference(network, pixels))


def bundle_of(name: str, side: int, **arguments) -> Bundle:
    torch.manual_seed(4)
    network = build_network(name, num_classes=7, aux_logits=False, **arguments)
    if name != "alexnet":
        network.fc.weight.data.normal_(std=0.3)
    preprocess = Preprocess(height=side, width=side)
    return Bundle(name, network.arguments, tuple("abcdefg"), preprocess, network.state_dict())


FAMILY = {
    "googlenet": (96, {"width": 0.25}),
    "googlenet_5h": (96, {"width": 0.3}),
    "googlenet_bn": (64, {"width": 0.5}),
    "inception_v2": (64, {"width": 0.25}),
    "inception_v3": (107, {"width": 0.25}),
    "inception_v4": (107, {"width": 0.25}),
    "inception_resnet_v1": (107, {"width": 0.25}),
    "inception_resnet_v2": (107, {"width": 0.25}),
}


@pytest.fixture(scope="module", params=FAMILY)
def family(request):
    side, arguments = FAMILY[request.param]
    bundle = bundle_of(request.param, side, **arguments)
    pixels = probe_images((3, side, side), 3, seed=2)
    with torch.no_grad():
        expected = rewritten(bundle).double()(torch.from_numpy(pixels)).numpy()
    return read_graph(graph_of(bundle, Form(response_norm="operator"))), pixels, expected


@pytest.mark.parametrize("method", ["direct", "winograd2", "winograd4"])
def test_the_family(family, method):
    network, pixels, expected = family
    layers = tuple(
        replace(layer, method=method) if method in layer.methods() else layer for layer in network.layers
    )
    found = opened(network._replace(layers=layers), together=2)(pixels)
    assert_close(found, expected, 2e-5)
    assert expected.std(axis=0).max() > 0


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor has no products of bfloat16")
def test_the_family_in_bfloat16(family):
    network, pixels, expected = family
    layers = tuple(
        replace(layer, method=random.Random(layer.output).choice(layer.methods())) for layer in network.layers
    )
    found = opened(network._replace(layers=layers), "bfloat16", together=2)(pixels)
    assert_close(found, expected, 0.04)


PRECISIONS = ["float32", *(["bfloat16"] if HAS_BFLOAT16 else [])]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_groups_threads_and_what_lay_in_memory_change_no_bit(precision):
    bundle = bundle_of("googlenet", 70, width=0.3)
    network = read_graph(graph_of(bundle, Form(response_norm="operator")))
    layers = tuple(replace(layer, method=layer.methods()[-1]) for layer in network.layers)
    network, pixels = network._replace(layers=layers), probe_images((3, 70, 70), 7)
    alone = np.concatenate([opened(network, precision, threads=1)(image[None]) for image in pixels])
    for threads, together in ((1, 2), (2, 1), (2, 3), (3, 2), (3, 7), (2, 16)):
        runner = opened(network, precision, threads, together)
        assert np.array_equal(runner(pixels), alone)
        for arena in runner._arenas.values():
            arena[:] = 0xFF  # not a number, in both precisions
        assert np.array_equal(runner(pixels), alone)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_fastest_methods_are_found(precision):
    bundle = bundle_of("googlenet_bn", 64, width=0.5)
    network, pixels = read_graph(graph_of(bundle)), probe_images((3, 64, 64), 4)
    plan = Plan("native", precision, 2, 4)
    files, note = fastest_network(network, plan, pixels)
    runner = NativeRunner(files["network.json"], files["network.weights"], plan)
    assert_close(runner(pixels), opened(network)(pixels), 1e-5 if precision == "float32" else 0.04)
    assert "direct" in note


def test_what_the_engine_does_not_have_is_said():
    bundle = bundle_of("alexnet", 227)
    with pytest.raises(UnsupportedLayerError, match="a convolution in groups, or dilated"):
        opened(read_graph(graph_of(bundle, Form(response_norm="operator"))))


def test_images_of_another_size_are_refused():
    maker = Maker(0, 16, 9, 9)
    runner = opened(maker.network())
    with pytest.raises(ValueError, match="not uint8"):
        runner(np.zeros((1, 3, 9, 8), dtype=np.uint8))
    with pytest.raises(ValueError, match="not uint8"):
        runner(np.zeros((1, 3, 9, 9), dtype=np.float32))


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "COMPILERS", ("no-such-compiler",))
    monkeypatch.setenv("INCEPTION_CACHE", str(tmp_path))
    module._outcome.cache_clear()
    try:
        with pytest.raises(MissingEngineError, match="engine cannot be had here: there is no C compiler"):
            opened(Maker(0, 16, 9, 9).network())
    finally:
        module._outcome.cache_clear()


def test_mutants_of_a_description_are_refused_or_run():
    """A number, a name or a layer changed: an answer or BundleError, never a crash or another error."""
    bundle = bundle_of("googlenet", 48, width=0.1)
    files = native_files(read_graph(graph_of(bundle, Form(response_norm="operator"))), False)
    description, chance = json.loads(files["network.json"]), random.Random(0)
    pixels, refused = probe_images((3, 48, 48), 1), 0
    values = [0, 1, -1, 2, 3, 7, 64, 1 << 40, 1.5, None, "x", [], [1, 2], [3, 3], True, "winograd4", PIXELS]
    for _ in range(400):
        mutant = json.loads(json.dumps(description))
        layer = chance.choice(mutant["layers"])
        change = chance.choice(["value", "item", "name", "drop", "top"])
        key = chance.choice(list(layer))
        if change == "value":
            layer[key] = chance.choice(values)
        elif change == "item" and isinstance(layer[key], list):
            layer[key][0] = chance.choice(values)
        elif change == "name":
            layer["inputs"] = [chance.choice(mutant["layers"])["output"]]
        elif change == "drop":
            mutant["layers"].remove(layer)
        else:
            mutant[chance.choice(list(mutant))] = chance.choice(values)
        text = json.dumps(mutant).encode()
        try:
            runner = NativeRunner(text, files["network.weights"], Plan("native", "float32", 1, 1))
            runner(pixels)
        except BundleError:
            refused += 1
        except ValueError as error:
            assert "not uint8" in str(error)  # the images of another network
    assert refused > 200


def test_weights_of_another_size_are_refused():
    files = native_files(Maker(0, 16, 9, 9).network(), False)
    with pytest.raises(BundleError, match="the weights have"):
        NativeRunner(files["network.json"], files["network.weights"][:-64], Plan("native", "float32", 1, 1))
