"""Every number of GoogLeNet and its variants against the verified facts."""

import math
from collections import defaultdict
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from facts import read_json, read_table
from torch import nn

from inception.nets.blocks import Inception
from inception.nets.complexity import LayerCost, endpoint_shapes, profile
from inception.nets.googlenet import TABLE_1
from inception.nets.heads import pool_to_grid
from inception.nets.network import Network, Plan
from inception.nets.registry import build_network
from inception.nets.rows import Style

MODULES = {row.name.removeprefix("inception"): row for row in TABLE_1 if isinstance(row, Inception)}
COLUMNS = {
    "n1x1": "b1x1",
    "r3x3": "b3x3_reduce",
    "n3x3": "b3x3",
    "r5x5": "b5x5_reduce",
    "n5x5": "b5x5",
    "pool_proj": "pool_proj",
}


@pytest.fixture(scope="module")
def googlenet():
    return build_network("googlenet").eval()


def weights(*modules: nn.Module) -> int:
    """Weights of convolutions and linear layers, without biases and normalisation."""
    return sum(
        layer.weight.numel()
        for module in modules
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    )


def biases(*modules: nn.Module) -> int:
    return sum(
        layer.bias.numel()
        for module in modules
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None
    )


def by_stage(costs: tuple[LayerCost, ...]) -> dict[str, list[LayerCost]]:
    stages = defaultdict(list)
    for cost in costs:
        stages[cost.stage].append(cost)
    return stages


def main_macs(network: Network, size: int = 224) -> int:
    return sum(cost.multiply_adds for cost in profile(network, size) if not cost.auxiliary)


def stage_names(layer: str) -> list[str]:
    special = {
        "conv1/7x7_s2": ["conv1"],
        "conv2 (3x3_reduce+3x3)": ["conv2", "conv3"],
        "loss3/classifier": ["fc"],
    }
    return special.get(layer) or [layer.replace("_", "")]


def test_every_row_of_table_1(shared, googlenet):
    rows = read_table(shared, "googlenet_table1")
    costs = by_stage(profile(googlenet, 224))
    with torch.no_grad():
        outputs = googlenet(torch.randn(1, 3, 224, 224), return_endpoints=googlenet.endpoints)
    assert len(rows) == 12
    for row in rows:
        names = stage_names(row["layer"])
        modules = [getattr(googlenet, name) for name in names]
        layers = [cost for name in names for cost in costs[name]]
        assert weights(*modules) == int(row["weights"]), row
        assert biases(*modules) == int(row["biases"]), row
        assert sum(cost.multiply_adds for cost in layers) == int(row["macs"]), row
        assert sum(cost.parameters for cost in layers) == int(row["weights"]) + int(row["biases"]), row
        assert layers[0].input_shape[0] == int(row["in_ch"]), row
        if names[-1] in outputs:
            hw = int(row["out_hw"])
            assert outputs[names[-1]].shape == (1, int(row["out_ch"]), hw, hw), row
        if names[0].startswith("inception"):
            for column, branch in COLUMNS.items():
                assert getattr(modules[0], branch).conv.out_channels == int(row[column]), (row, column)
            module, _ = MODULES[names[0].removeprefix("inception")].build(
                int(row["in_ch"]), Style(kernel5="3x3")
            )
            assert weights(module) == int(row["weights_3x3_variant"]), row


def test_totals(shared, googlenet):
    facts = read_json(shared, "googlenet_totals")
    aux = [googlenet.aux1, googlenet.aux2]
    main = [module for name, module in googlenet.named_children() if not name.startswith("aux")]
    assert weights(*main) == facts["main_weights"]
    assert biases(*main) == facts["main_biases"]
    assert sum(p.numel() for p in googlenet.parameters()) == facts["with_aux_total"]
    assert main_macs(googlenet) == facts["main_macs"]
    costs = by_stage(profile(googlenet, 224))
    for name, head in zip(("aux1", "aux2"), aux, strict=True):
        assert weights(head) == facts[name]["w"]
        assert biases(head) == facts[name]["b"]
        assert sum(cost.multiply_adds for cost in costs[name]) == facts[name]["macs"]
        assert all(cost.auxiliary for cost in costs[name])
    without = build_network("googlenet", aux=False)
    assert sum(p.numel() for p in without.parameters()) == facts["main_total"]
    convolutions = [getattr(without, name) for name in without.endpoints]
    assert weights(*convolutions) == facts["conv_weights"]
    assert biases(*convolutions) == 7280


def test_naive_against_reduced_modules(shared):
    rows = read_table(shared, "inception_naive_vs_reduced")
    assert [row["module"] for row in rows] == list(MODULES)
    for row in rows:
        in_channels, area = int(row["in_ch"]), int(row["hw"]) ** 2
        for kind, style in (("reduced", Style()), ("naiveA", Style(module="naive"))):
            module, out_channels = MODULES[row["module"]].build(in_channels, style)
            expected = row["naive_out_ch"] if kind == "naiveA" else row["out_ch"]
            assert out_channels == int(expected), row
            assert module(torch.zeros(1, in_channels, 7, 7)).shape == (1, out_channels, 7, 7)
            assert weights(module) == int(row[f"{kind}_weights"]), row
            assert biases(module) == int(row[f"{kind}_biases"]), row
            assert weights(module) * area == int(row[f"{kind}_macs"]), row
        assert int(row["naiveA_weights"]) / int(row["reduced_weights"]) == pytest.approx(
            float(row["naiveA_w_ratio"]), abs=1e-4
        )


def test_naive_modules_in_cascade():
    """architectures.md 2.2: 92.45M weights, 12.09G multiply-adds in the nine modules, 4,944 channels out."""
    network = build_network("googlenet", module="naive", aux=False)
    modules = [getattr(network, name) for name in network.endpoints if name.startswith("inception")]
    macs = sum(cost.multiply_adds for cost in profile(network, 224) if cost.stage.startswith("inception"))
    assert round(weights(*modules) / 1e6, 2) == 92.45
    assert round(macs / 1e9, 2) == 12.09
    assert network.num_features == 4944


def test_torchvision_variant_layer_by_layer(shared):
    network = build_network("googlenet_tv", aux=False)
    costs = profile(network, 224)
    convolutions = [cost for cost in costs if cost.kind == "convolution"]
    facts = read_table(shared, "torchvision_googlenet_convs")
    assert [cost.path for cost in convolutions] == [row["conv"] for row in facts]
    for cost, row in zip(convolutions, facts, strict=True):
        layer = network.get_submodule(cost.path)
        assert (cost.input_shape[0], cost.output_shape[0]) == (int(row["in"]), int(row["out"])), row
        assert "x".join(map(str, cost.kernel)) == row["kernel"], row
        assert cost.stride == (int(row["stride"]),) * 2, row
        assert "x".join(map(str, layer.padding)) == row["pad"], row
        assert (layer.bias is not None) == bool(int(row["bias"])), row
        assert "x".join(map(str, cost.output_shape[1:])) == row["out_hw"], row
        assert cost.parameters == int(row["weights"]), row
        assert cost.multiply_adds == int(row["macs"]), row
    shapes, stages = endpoint_shapes(network, 224), by_stage(costs)
    for row in read_table(shared, "torchvision_googlenet_modules"):
        name = {"avgpool": "head"}.get(row["module"], row["module"])
        assert sum(cost.parameters for cost in stages[name]) == int(row["params"]), row
        assert sum(cost.multiply_adds for cost in stages[name]) == int(row["macs"]), row
        if name in shapes:
            assert "x".join(map(str, shapes[name])) == row["out_CxHxW"], row
            assert "x".join(map(str, stages[name][0].input_shape)) == row["in_CxHxW"], row


@pytest.mark.parametrize(("key", "aux"), [("tv_googlenet_aux", True), ("tv_googlenet_noaux", False)])
def test_torchvision_variant_counts(shared, key, aux):
    facts = read_json(shared, "param_counts")["computed_by_instantiation"][key]
    network = build_network("googlenet_tv", aux=aux)
    layers = list(network.modules())
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    assert sum(p.numel() for p in network.parameters()) == facts["total"]
    assert main_macs(network) == facts["macs"]
    assert sum(isinstance(layer, nn.Conv2d) for layer in layers) == facts["n_conv"]
    assert sum(isinstance(layer, nn.Linear) for layer in layers) == facts["n_linear"]
    assert len(norms) == facts["n_bn"]
    assert len(network.state_dict()) == facts["n_state_keys"]
    assert sum(buffer.numel() for buffer in network.buffers()) == facts["buffers"]
    assert sorted({str((norm.eps, norm.momentum)) for norm in norms}) == facts["bn_eps_mom"]


def test_released_network_counts(shared):
    facts = read_json(shared, "param_counts")["computed_by_arithmetic"]
    released = facts["google_released_5h_like(4a 3x3=204,5a r5=48)"]
    for classes in (1008, 1000):
        network = build_network("googlenet_5h", num_classes=classes)
        assert sum(p.numel() for p in network.parameters()) == released[f"{classes}cls_main"]
    default = build_network("googlenet_5h")
    assert default.num_classes == 1008
    assert default.inception4a.b3x3.conv.out_channels == 204
    assert default.inception5a.b5x5_reduce.conv.out_channels == 48
    assert default.inception4b.b1x1.conv.in_channels == 508


@pytest.mark.parametrize(
    ("name", "constants"), [("googlenet", (5, 1e-4, 0.75, 1.0)), ("googlenet_5h", (11, 0.0011, 0.5, 2.0))]
)
def test_response_norm_constants(name, constants):
    """Caffe's, and those of the released network (0.0011 over 11 channels): architectures.md 1.1."""
    network = build_network(name)
    for norm in (network.norm1, network.norm2):
        assert (norm.size, norm.alpha, norm.beta, norm.k) == constants


def test_slim_trunk_count_by_slims_rule(shared):
    """TF-slim asserts 5,607,184: weights, beta, moving mean and variance, no gamma, no classifier."""
    expected = read_json(shared, "param_counts")["quoted_from_slim_tests"]["inception_v1_base"]
    network = build_network("googlenet_tv", aux=False)
    trunk = [getattr(network, name) for name in network.endpoints]
    norms = [layer for part in trunk for layer in part.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert weights(*trunk) + 3 * sum(norm.num_features for norm in norms) == expected


@pytest.mark.parametrize("name", ["googlenet", "googlenet_bn", "googlenet_tv"])
def test_slim_endpoints_through_aliases(shared, name):
    rows = [row for row in read_table(shared, "slim_endpoints") if row["net"] == "slim_v1"]
    network = build_network(name, aux=False).eval()
    with torch.no_grad():
        found = network(torch.randn(1, 3, 224, 224), return_endpoints=[row["endpoint"] for row in rows])
    assert len(rows) == 16
    for row in rows:
        hw = int(row["hw"])
        assert found[row["endpoint"]].shape == (1, int(row["channels"]), hw, hw), row


@pytest.mark.parametrize(
    ("size", "expected"), [((112, 112), (4, 4)), ((250, 300), (8, 10)), ((224, 224), (7, 7))]
)
def test_slim_sizes_of_the_released_network(size, expected):
    assert endpoint_shapes(build_network("googlenet_5h"), size)["inception5b"] == (1024, *expected)


POOL_STAGES = {"conv1": "conv1", "pool1": "maxpool1", "pool2": "maxpool2", "pool3": "maxpool3"}


def test_sizes_along_the_network(shared):
    sizes = read_json(shared, "aux_and_pool")["sizes"]
    ceil, slim = build_network("googlenet"), build_network("googlenet_tv")
    for size, facts in sizes.items():
        shapes, slim_shapes = endpoint_shapes(ceil, int(size)), endpoint_shapes(slim, int(size))
        for fact, stage in POOL_STAGES.items():
            assert shapes[stage][1:] == (facts[fact],) * 2, (size, fact)
        assert shapes["maxpool4"][1:] == (facts["pool4_3x3"],) * 2, size
        assert slim_shapes["maxpool4"][1:] == (facts["pool4_2x2ceil"],) * 2, size
        side = shapes["inception4a"][1]
        assert (None if side < 5 else (side - 5) // 3 + 1) == facts["aux"], size


def test_sizes_with_floor_pools(shared):
    network = Network(Plan(rows=TABLE_1, style=Style(padding="floor")), num_classes=2)
    for size, facts in read_json(shared, "aux_and_pool")["sizes"].items():
        if min(facts["floor_chain"]) == 0:
            continue
        shapes = endpoint_shapes(network, int(size))
        stages = [*POOL_STAGES.values(), "maxpool4"]
        assert [shapes[stage][1] for stage in stages] == facts["floor_chain"], size


def test_auxiliary_windows_fit_from_223_to_270(googlenet):
    """The paper's 5x5 windows at stride 3 give 4x4 for these sizes only; others use adaptive windows."""
    for size in (222, 223, 224, 270, 271):
        side = endpoint_shapes(googlenet, size)["inception4a"][1]
        x = torch.randn(1, 3, side, side)
        pooled, windows = pool_to_grid(x, "5/3"), F.avg_pool2d(x, 5, 3)
        assert pooled.shape[2:] == (4, 4)
        assert (windows.shape[2:] == (4, 4)) == (223 <= size <= 270)
        if windows.shape[2:] == (4, 4):
            assert torch.equal(pooled, windows)
            assert (pooled - F.adaptive_avg_pool2d(x, 4)).abs().max() > 0.05


def test_endpoint_channels_follow_each_other(googlenet):
    shapes = endpoint_shapes(googlenet, 224)
    stages = by_stage(profile(googlenet, 224))
    for before, after in pairwise(googlenet.endpoints):
        assert stages[after][0].input_shape == shapes[before]
        assert math.prod(shapes[before]) > 0
