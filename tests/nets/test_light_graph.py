"""Conformance: Caffe's GoogLeNet, from the `onnx` wheel, with random weights, against ours with the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from light_graphs import fill_with_random_weights, graph_logits, light_graph, our_state, use_ceil_pools

from inception.nets.googlenet import TABLE_1
from inception.nets.network import Network, Plan
from inception.nets.rows import LrnConstants, Style


def our_logits(values: dict[str, np.ndarray], images: np.ndarray, style: Style) -> np.ndarray:
    network = Network(Plan(rows=TABLE_1, style=style)).eval()
    network.load_state_dict(our_state(values), strict=True)
    with torch.no_grad():
        return network(torch.from_numpy(images)).numpy()


@pytest.fixture(scope="module", params=["ceil", "floor"])
def conformance(request):
    generator = np.random.default_rng(0)
    model = light_graph("light_inception_v1")
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
