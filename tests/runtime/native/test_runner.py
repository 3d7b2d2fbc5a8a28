"""The native engine against PyTorch in float64: single layers of any size, whole networks, all methods."""

import os
import platform
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from making import OUTPUTS, Maker, assert_close, bundle_of, opened, reference

from inception.errors import UnsupportedLayerError
from inception.native import compiler
from inception.runtime.engines import MissingEngineError
from inception.runtime.forms import Form, graph_of, rewritten
from inception.runtime.native import runner as module
from inception.runtime.native.choosing import fastest_network
from inception.runtime.native.from_onnx import read_graph
from inception.runtime.native.layers import PIXELS, WINOGRAD, Layer
from inception.runtime.native.runner import NativeRunner
from inception.runtime.plan import Plan
from inception.runtime.timing import probe_images

try:
    HAS_BFLOAT16 = bool(module.library().engine_has_bfloat16())
except MissingEngineError as error:
    pytest.skip(f"no native engine here: {error}", allow_module_level=True)

PRECISIONS = ["float32", *(["bfloat16"] if HAS_BFLOAT16 else [])]
FIXTURE = [HealthCheck.function_scoped_fixture]


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
@settings(deadline=None, max_examples=120, suppress_health_check=FIXTURE)
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
@settings(deadline=None, max_examples=60, suppress_health_check=FIXTURE)
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


def test_what_is_read_out_by_filtering():
    """The last convolution's outputs are float32 in bfloat16 too."""
    maker = Maker(3, 32, 3, 3)
    network = maker.network()
    last = replace(network.layers[-1], method="winograd2")
    pixels = maker.images(2)
    for precision, tolerance in zip(PRECISIONS, (3e-6, 0.02), strict=False):
        runner = opened(network._replace(layers=(*network.layers[:-1], last)), precision)
        assert_close(runner(pixels), reference(network, pixels), tolerance)


def test_no_images():
    maker = Maker(0, 16, 9, 9)
    assert opened(maker.network())(maker.images(0)).shape == (0, OUTPUTS)


def test_in_a_forked_process():
    maker = Maker(0, 16, 9, 9)
    network, pixels = maker.network(), maker.images(1)
    runner = opened(network, threads=2)
    expected = runner(pixels)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, runner(pixels).tobytes())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 4096) == expected.tobytes()
    os.close(reading)
    os.close(writing)


def test_two_runners_at_once():
    maker = Maker(0, 40, 20, 20)
    network, pixels = maker.network(), maker.images(5)
    runners = [opened(network, threads=2, together=2) for _ in range(2)]
    expected = opened(network, threads=1)(pixels)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: runners[index % 2](pixels), range(40)))
    assert all(np.array_equal(one, expected) for one in found)


@st.composite
def networks(draw):
    """A few layers of any kind over any of the maps before them, all of which are read in the end."""
    maker = Maker(draw(st.integers(0, 999)), draw(st.integers(1, 40)), *draw(sizes))
    for index in range(draw(st.integers(1, 7))):
        shapes, name = maker.shapes(), f"map{index}"
        joined = {part for layer in maker.layers if layer.kind == "concat" for part in layer.inputs}
        source = draw(st.sampled_from([layer.output for layer in maker.layers]))
        shape = shapes[source]
        same = [
            other
            for other in shapes
            if shapes[other][1:] == shape[1:] and other != PIXELS and other not in joined
        ]
        kind = draw(st.sampled_from(["same", "valid", "added", "pool", "concat", "norm"]))
        kernel = draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (1, 7), (7, 1), (3, 1)]))
        pads = (kernel[0] // 2, kernel[1] // 2) * 2
        methods = ("direct", *WINOGRAD.get(kernel, ()))
        if kind == "concat" and len(same) > 1:
            parts = tuple(draw(st.lists(st.sampled_from(same), min_size=2, max_size=3, unique=True)))
            maker.layers.append(Layer("concat", parts, name))
        elif kind == "added":
            channels = shape.channels
            maker.convolution(
                source, name, channels, kernel, pads=pads, added=source, relu=draw(st.booleans())
            )
        elif kind == "pool" and min(shape[1:]) >= 3:
            stride = draw(st.integers(1, 2))
            maker.layers.append(
                Layer("max_pool", (source,), name, kernel=(3, 3), stride=(stride, stride), ceil_mode=True)
            )
        elif kind == "valid" and shape.height >= kernel[0] and shape.width >= kernel[1]:
            maker.convolution(source, name, draw(st.integers(1, 40)), kernel, stride=(2, 2), relu=True)
        elif kind == "same":
            method, channels = draw(st.sampled_from(methods)), draw(st.integers(1, 40))
            maker.convolution(source, name, channels, kernel, pads=pads, relu=True, method=method)
    ends = [layer.output for layer in maker.layers]
    for end in ends:
        maker.layers.append(Layer("global_average_pool", (end,), f"{end}: mean"))
    joined = {part for layer in maker.layers if layer.kind == "concat" for part in layer.inputs}
    maker.layers.append(Layer("concat", tuple(f"{end}: mean" for end in ends), "all"))
    return maker.network(), maker.images(3)


@given(networks(), st.integers(1, 3), st.integers(1, 3), st.sampled_from(PRECISIONS))
@settings(deadline=None, max_examples=80, suppress_health_check=FIXTURE)
def test_random_networks(made, threads, together, precision):
    network, pixels = made
    found = opened(network, precision, threads, together)(pixels)
    assert_close(found, reference(network, pixels), 3e-5 if precision == "float32" else 0.06)


@pytest.mark.parametrize("machine", ["x86-64-v3", "x86-64"])
def test_processors_with_smaller_registers(machine, monkeypatch):
    """The same code for 256 and for 128 bits gives the same answers."""
    if platform.machine() != "x86_64":
        pytest.skip("a test of x86")
    sources = replace(module.SOURCES, flags=(*module.SOURCES.flags, f"-march={machine}"))
    bundle = bundle_of("googlenet", 48, width=0.2)
    network, pixels = (
        read_graph(graph_of(bundle, Form(response_norm="operator"))),
        probe_images((3, 48, 48), 2),
    )
    layers = tuple(replace(layer, method=layer.methods()[-1]) for layer in network.layers)
    expected = opened(network)(pixels)
    small = compiler.compiled(sources)
    monkeypatch.setattr(module, "library", lambda: small)
    assert_close(opened(network._replace(layers=layers))(pixels), expected, 1e-5)
