"""Descriptions that anyone may have written: refused, or run within their memory."""

import json
import random
import re
from collections import Counter

import pytest
from making import Maker, bundle_of

from inception.errors import BundleError
from inception.runtime.engines import MissingEngineError
from inception.runtime.forms import Form, graph_of
from inception.runtime.native import runner as module
from inception.runtime.native.from_onnx import read_graph
from inception.runtime.native.layers import PIXELS, Layer
from inception.runtime.native.runner import NativeRunner, native_files
from inception.runtime.plan import Plan
from inception.runtime.timing import probe_images

try:
    HAS_BFLOAT16 = bool(module.library().engine_has_bfloat16())
except MissingEngineError as error:
    pytest.skip(f"no native engine here: {error}", allow_module_level=True)

PRECISIONS = ["float32", *(["bfloat16"] if HAS_BFLOAT16 else [])]


def mutated(description: dict, chance: random.Random) -> dict:
    """A number, a name or a layer changed."""
    values = [0, 1, -1, 2, 3, 7, 64, 1 << 40, 1.5, None, "x", [], [1, 2], [3, 3], True, "winograd4", PIXELS]
    mutant = json.loads(json.dumps(description))
    layers = mutant["layers"]
    layer = chance.choice(layers)
    key = chance.choice(list(layer))
    names = [PIXELS, "room for tiles", *(other["output"] for other in layers)]
    change = chance.choice(["value", "item", "name", "added", "output", "drop", "top", "method"])
    if change == "value":
        layer[key] = chance.choice(values)
    elif change == "item" and isinstance(layer[key], list) and layer[key]:
        layer[key][0] = chance.choice(values)
    elif change == "name":
        layer["inputs"] = [chance.choice(names)]
    elif change == "added":
        layer["added"] = chance.choice(names)
    elif change == "output":
        layer["output"] = chance.choice(names)
    elif change == "method":
        layer["method"] = chance.choice(["winograd2", "winograd4", "direct"])
    elif change == "drop":
        layers.remove(layer)
    else:
        mutant[chance.choice(list(mutant))] = chance.choice(values)
    return mutant


def test_mutants_of_a_description_are_refused_or_run():
    """An answer or BundleError, never a crash or another error, though the weights have the right size."""
    bundle = bundle_of("inception_resnet_v2", 75, width=0.1)
    files = native_files(read_graph(graph_of(bundle, Form(response_norm="operator"))), False)
    description, chance, outcomes = json.loads(files["network.json"]), random.Random(0), Counter()
    for _ in range(300):
        mutant, weights = mutated(description, chance), files["network.weights"]
        text = json.dumps(mutant).encode()
        plan = Plan("native", chance.choice(PRECISIONS), chance.randint(1, 2), 4)
        for _ in range(2):
            try:
                runner = NativeRunner(text, weights, plan)
                runner(probe_images(runner.pixels, 3))
                outcomes["run"] += 1
                break
            except BundleError as error:
                needed = re.search(r"the layers need (\d+)\)", str(error))
                if needed is None or int(needed[1]) > 1 << 26:
                    outcomes["refused"] += 1
                    break
                weights = bytes(int(needed[1]))
    assert outcomes["refused"] > 50
    assert outcomes["run"] > 30


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([Layer("convolution", (PIXELS,), "a", channels=3, added=PIXELS)], "adds images"),
        (
            [
                Layer("convolution", (PIXELS,), "a", channels=16, kernel=(9, 9)),
                Layer("convolution", ("a",), "b", channels=16, kernel=(3, 3), pads=(1, 1, 1, 1)),
                Layer("concat", ("a", "b"), "c"),
            ],
            "logits are padded",
        ),
        ([Layer("convolution", (PIXELS,), "a", channels=3)], "do not lead to logits"),
    ],
)
def test_descriptions_that_would_be_read_wrongly(layers, reason):
    values = {"schema": 1, "pixels": [3, 9, 9], "centered": False, "together": 1}
    text = json.dumps(values | {"layers": [layer.to_json() for layer in layers]}).encode()
    with pytest.raises(BundleError) as caught:
        NativeRunner(text, b"", Plan("native", "float32", 1, 1))
    needed = re.search(r"the layers need (\d+)\)", str(caught.value))
    weights = bytes(int(needed[1])) if needed else b""
    with pytest.raises(BundleError, match=reason):
        NativeRunner(text, weights, Plan("native", "float32", 1, 1))


def test_int8_is_refused():
    files = native_files(Maker(0, 16, 9, 9).network(), False)
    with pytest.raises(BundleError, match="no int8"):
        NativeRunner(files["network.json"], files["network.weights"], Plan("native", "int8", 1, 1))


def test_weights_of_another_size_are_refused():
    files = native_files(Maker(0, 16, 9, 9).network(), False)
    with pytest.raises(BundleError, match="the weights have"):
        NativeRunner(files["network.json"], files["network.weights"][:-64], Plan("native", "float32", 1, 1))
