"""The description of a network: kept exactly, refused where it cannot be."""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from inception.runtime.native.layers import PIXELS, Layer, Shape, layer_from_json, shapes_of

IMAGE = Shape(3, 20, 24)
CONVOLUTION = Layer("convolution", (PIXELS,), "a", channels=8, kernel=(3, 3), pads=(1, 1, 1, 1), relu=True)
LAYERS = (
    CONVOLUTION,
    Layer("convolution", ("a",), "b", channels=8, kernel=(3, 3), pads=(1, 1, 1, 1), method="winograd4"),
    Layer("max_pool", ("a",), "c", kernel=(3, 3), stride=(2, 2), ceil_mode=True),
    Layer("response_norm", ("a",), "d", size=5, alpha=2e-5, offset=1.0, beta=0.5),
    Layer("average_pool", ("a",), "e", kernel=(3, 3), pads=(1, 1, 1, 1), count_include_pad=True),
    Layer("concat", ("b", "d", "e"), "f"),
    Layer("global_average_pool", ("f",), "g"),
)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.kind)
def test_json_and_back(layer):
    assert layer_from_json(layer.to_json()) == layer


def test_shapes():
    shapes = shapes_of(LAYERS, IMAGE)
    assert shapes["f"] == (24, 20, 24)
    assert shapes["c"] == (8, 10, 12)
    assert shapes["g"] == (24, 1, 1)


@given(
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 2),
    st.integers(5, 30),
    st.booleans(),
)
def test_pools_have_pytorchs_sizes(kernel, stride, pad, side, ceil_mode):
    assume(pad <= kernel // 2)
    layer = Layer(
        "max_pool",
        (PIXELS,),
        "x",
        kernel=(kernel,) * 2,
        stride=(stride,) * 2,
        pads=(pad,) * 4,
        ceil_mode=ceil_mode,
    )
    expected = nn.MaxPool2d(kernel, stride, pad, ceil_mode=ceil_mode)(torch.zeros(1, 3, side, side)).shape
    assert shapes_of((layer,), Shape(3, side, side))["x"] == expected[1:]


WRONG = [
    {"kind": "softmax"},
    {"kernel": [0, 3]},
    {"kernel": [3]},
    {"kernel": "33"},
    {"stride": [1, -1]},
    {"pads": [1, 1, 1]},
    {"pads": [1 << 20, 0, 0, 0]},
    {"channels": 1.5},
    {"channels": True},
    {"channels": -1},
    {"inputs": []},
    {"inputs": [3]},
    {"method": "winograd4"},  # of the images
    {"method": "magic"},
    {"nothing": 1},
    {"alpha": 1},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_what_cannot_be_is_refused(change):
    with pytest.raises((ValueError, TypeError)):
        layer_from_json(CONVOLUTION.to_json() | change)


@pytest.mark.parametrize(
    "layers",
    [
        (replace(CONVOLUTION, inputs=("b",)),),
        (CONVOLUTION, CONVOLUTION),
        (replace(CONVOLUTION, channels=0),),
        (replace(CONVOLUTION, kernel=(30, 3)),),
        (CONVOLUTION, Layer("concat", ("a", PIXELS, "z"), "b")),
        (CONVOLUTION, LAYERS[2], Layer("concat", ("a", "c"), "x")),
        (CONVOLUTION, Layer("max_pool", ("a",), "b", kernel=(2, 2), pads=(2, 2, 2, 2))),
        (CONVOLUTION, Layer("response_norm", ("a",), "b", size=4)),
        (CONVOLUTION, Layer("response_norm", ("a",), "b", size=5, beta=0.6)),
        (CONVOLUTION, replace(LAYERS[1], added="c"), LAYERS[2]),
        (CONVOLUTION, LAYERS[2], replace(LAYERS[1], added="c")),
        (CONVOLUTION, Layer("max_pool", ("a", "a"), "b")),
        (replace(CONVOLUTION, channels=1 << 16, kernel=(1, 1)),) * 1,
    ][:-1],
)
def test_layers_that_do_not_fit_are_refused(layers):
    with pytest.raises(ValueError, match=r"."):
        shapes_of(layers, IMAGE)
