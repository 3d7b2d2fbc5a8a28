"""Every number of the later networks and the classics against the verified facts."""

from collections import defaultdict

import pytest
import torch
from facts import read_json, read_table
from network_cases import on_meta
from peer_names import PEERS, peer_name
from torch import nn

from inception.nets.complexity import endpoint_shapes, profile
from inception.nets.network import Network

# Tables written from torchvision's and timm's networks: (facts, network, image size).
TABLES = [
    ("inception_v3", "inception_v3"),
    ("inception_v4", "inception_v4"),
    ("inception_resnet_v2", "inception_resnet_v2"),
    ("alexnet_tv", "alexnet_tv"),
    ("vgg16", "vgg16"),
    ("vgg19", "vgg19"),
]
POOLS = {
    "inception_v3": {"maxpool1": "MaxPool_3a_3x3", "maxpool2": "MaxPool_5a_3x3"},
    "inception_resnet_v2": {"maxpool_3a": "MaxPool_3a_3x3", "maxpool_5a": "MaxPool_5a_3x3"},
}
# Their containers and layers without weights, which have no place of their own in ours.
UNNAMED = ("avgpool", "dropout", "features", "classifier", "global_pool", "head_drop")


def theirs(path: str, name: str) -> str:
    """Their name of our module."""
    return peer_name(f"{path}.", PEERS[name]).rstrip(".")


def text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


@pytest.mark.parametrize(("facts", "name"), TABLES)
def test_every_convolution(shared, facts, name):
    network = on_meta(name, aux_logits=False)
    costs = [cost for cost in profile(network, network.image_size) if cost.kind == "convolution"]
    ours = {theirs(cost.path, name): cost for cost in costs}
    rows = read_table(shared, f"{facts}_convs")
    assert ours.keys() == {row["conv"] for row in rows}
    assert len(ours) == len(rows) == len(costs)
    for row in rows:
        cost = ours[row["conv"]]
        check_convolution(network, cost, row)


def check_convolution(network: Network, cost, row: dict[str, str]) -> None:
    layer = network.get_submodule(cost.path)
    assert (cost.input_shape[0], cost.output_shape[0]) == (int(row["in"]), int(row["out"])), row
    assert text(cost.kernel) == row["kernel"], row
    assert cost.stride == (int(row["stride"]),) * 2, row
    assert text(layer.padding) == row["pad"], row
    assert (layer.bias is not None) == bool(int(row["bias"])), row
    assert text(cost.output_shape[1:]) == row["out_hw"], row
    assert layer.weight.numel() == int(row["weights"]), row
    assert cost.multiply_adds == int(row["macs"]), row


@pytest.mark.parametrize(("facts", "name"), TABLES)
def test_every_module(shared, facts, name):
    network = on_meta(name, aux_logits=False)
    parameters, macs, shapes = defaultdict(int), defaultdict(int), {}
    for cost in profile(network, network.image_size):
        parts = theirs(cost.path, name).split(".")
        for end in range(1, len(parts) + 1):
            parameters[".".join(parts[:end])] += cost.parameters
            macs[".".join(parts[:end])] += cost.multiply_adds
        shapes[".".join(parts)] = cost.output_shape
    names = {theirs(f"{stage}.conv", name).removesuffix(".conv"): stage for stage in network.endpoints}
    names |= {theirs(stage, name): stage for stage in network.endpoints}
    names |= POOLS.get(name, {})
    shapes |= endpoint_shapes(network, network.image_size)
    found = 0
    for row in read_table(shared, f"{facts}_modules"):
        module = row["module"]
        if (module.startswith(UNNAMED) and module not in parameters) or module in ("features", "classifier"):
            continue
        assert parameters[module] == int(row["params"]), row
        assert macs[module] == int(row["macs"]), row
        if (place := names.get(module, module)) in shapes and row["type"] not in ("Linear", "Dropout"):
            assert text(shapes[place]) == row["out_CxHxW"], row
            found += 1
    assert found >= 5


COUNTS = {
    "tv_inception_v3_aux": ("inception_v3", {}),
    "tv_inception_v3_noaux": ("inception_v3", {"aux_logits": False}),
    "timm_inception_v3": ("inception_v3", {"aux_logits": False}),
    "timm_inception_v3_aux": ("inception_v3", {}),
    "timm_inception_v4": ("inception_v4", {"aux_logits": False}),
    "timm_inception_resnet_v2": ("inception_resnet_v2", {"aux_logits": False}),
    "cadene_bninception": ("inception_v2_caffe", {}),
    "cadene_inceptionv4": ("inception_v4", {"aux_logits": False, "num_classes": 1001}),
    "cadene_inceptionresnetv2": ("inception_resnet_v2", {"aux_logits": False, "num_classes": 1001}),
    "caffe_bvlc_alexnet_227": ("alexnet", {}),
    "tv_alexnet": ("alexnet_tv", {}),
    **{f"tv_vgg{depth}": (f"vgg{depth}", {}) for depth in (11, 13, 16, 19)},
    "tv_vgg16_bn": ("vgg16_bn", {}),
    "tv_vgg19_bn": ("vgg19_bn", {}),
    "d2l_nin_1ch_10cls": ("nin", {"in_chans": 1, "num_classes": 10}),
    "d2l_nin_3ch_1000cls": ("nin", {}),
    "d2l_lenet_28": ("lenet5", {"in_chans": 1}),
}


@pytest.mark.parametrize("key", COUNTS)
def test_counts(shared, key):
    facts = read_json(shared, "param_counts")["computed_by_instantiation"][key]
    name, arguments = COUNTS[key]
    network = on_meta(name, **arguments)
    layers = list(network.modules())
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    kept = {k.rpartition(".")[2]: v for k, v in network.named_buffers()}
    costs = profile(network, tuple(facts["input"][1:]))
    auxiliary = sum(cost.multiply_adds for cost in costs if cost.auxiliary)
    counted_with = auxiliary if key == "timm_inception_v3_aux" else 0
    assert sum(p.numel() for p in network.parameters()) == facts["total"]
    assert sum(cost.multiply_adds for cost in costs) - auxiliary + counted_with == facts["macs"]
    assert sum(isinstance(layer, nn.Conv2d) for layer in layers) == facts["n_conv"]
    assert sum(isinstance(layer, nn.Linear) for layer in layers) == facts["n_linear"]
    assert len(norms) == facts["n_bn"]
    assert len(network.state_dict()) == facts["n_state_keys"]
    if "band" not in kept:  # response normalisation's constants are not part of the state
        assert sum(buffer.numel() for buffer in network.buffers()) == facts["buffers"]
    assert sorted({str((norm.eps, norm.momentum)) for norm in norms}) == facts["bn_eps_mom"]


def test_inception_v2_in_both_widths(shared):
    columns = {"n1x1": "b1x1", "r3x3": "b3x3_reduce", "n3x3": "b3x3", "r_d3x3": "double3x3_reduce"}
    columns |= {"d3x3": "double3x3b", "pool_proj": "pool_proj"}
    rows = read_table(shared, "bninception_variants")
    assert len(rows) == 20
    networks = {False: on_meta("inception_v2"), True: on_meta("inception_v2_caffe")}
    shapes = {caffe: endpoint_shapes(network, 224) for caffe, network in networks.items()}
    for row in rows:
        caffe, stage = row["variant"].startswith("cadene"), f"inception{row['module']}"
        module, place = getattr(networks[caffe], stage), networks[caffe].endpoints.index(stage)
        before = shapes[caffe][networks[caffe].endpoints[place - 1]]
        assert before[0] == int(row["in"]), row
        assert shapes[caffe][stage] == (int(row["out"]), *(int(row["hw_out"]),) * 2), row
        for column, branch in columns.items():
            expected = int(row[column]) if row[column] not in ("pass", "0") else None
            layer = getattr(module, branch, None)
            assert (None if layer is None else layer.conv.out_channels) == expected, (row, column)
        kind = "AvgPool" if row["pool"] == "avg" else "MaxPool"
        assert (type(module.pool).__name__, module.pool.stride) == (kind, int(row["stride"])), row


def caffe_name(path: str) -> str:
    """Cadene's names of our convolutions."""
    stem = {"conv1": "conv1_7x7_s2", "conv2": "conv2_3x3_reduce", "conv3": "conv2_3x3"}
    stage, _, rest = path.removesuffix(".conv").partition(".")
    branch = {"double3x3_reduce": "double_3x3_reduce", "double3x3a": "double_3x3_1"}
    branch |= {"double3x3b": "double_3x3_2"}
    return stem.get(stage) or f"inception_{stage[-2:]}_{branch.get(rest, rest.removeprefix('b'))}"


def test_inception_v2_of_caffe_layer_by_layer(shared):
    network = on_meta("inception_v2_caffe")
    costs = [cost for cost in profile(network, 224) if cost.kind == "convolution"]
    rows = read_table(shared, "bninception_cadene_convs")
    assert [caffe_name(cost.path) for cost in costs] == [row["conv"] for row in rows]
    for cost, row in zip(costs, rows, strict=True):
        check_convolution(network, cost, row)


def test_inception_resnet_v1_as_facenet_builds_it(shared):
    """Trunk 22,564,096 (22,549,808 without gamma), 24,357,096 with a classifier of 1000."""
    facts = read_json(shared, "param_counts")["computed_by_arithmetic"]["inception_resnet_v1_facenet_trunk"]
    network = on_meta("inception_resnet_v1")
    trunk = [getattr(network, name) for name in network.endpoints]
    parameters = sum(p.numel() for stage in trunk for p in stage.parameters())
    gamma = sum(m.num_features for s in trunk for m in s.modules() if isinstance(m, nn.BatchNorm2d))
    up = sum(m.bias.numel() for s in trunk for m in s.modules() if getattr(m, "bias", None) is not None)
    assert parameters == facts["W+b+2C"]
    assert parameters - gamma == facts["W+b+C(no gamma)"]
    assert (gamma, up - gamma) == (facts["C"], facts["residual_up_bias"])
    assert sum(p.numel() for p in network.parameters()) == facts["W+b+2C+fc1000"]
    shapes = endpoint_shapes(network, 299)
    rows = read_table(shared, "inception_resnet_v1_modules")
    stages = ("Conv2d_4b_3x3", "Block35", "Mixed_6a", "Block17", "Mixed_7a", "Block8", "Block8")
    for row, stage in zip(rows, stages, strict=False):
        assert shapes[stage] == (int(row["out_ch"]), *(int(row["out_hw@299"]),) * 2), row
    repeats = [len(network.Block35), len(network.Block17), len(network.Block8)]
    assert repeats == [5, 10, 6]
    scales = {block.scale for stage in ("Block35", "Block17", "Block8") for block in getattr(network, stage)}
    assert scales == {0.17, 0.10, 0.20, 1.0}
    assert [block.relu for block in network.Block8] == [True] * 5 + [False]


def test_inception_resnet_v2_in_the_papers_layout():
    network = on_meta("inception_resnet_v2_paper")
    shapes = endpoint_shapes(network, 299)
    # The paper's figures print 1154 and 2048 for the widths that its own blocks make 1152 and 2144.
    assert shapes["Block35"] == (384, 35, 35)
    assert shapes["PreAuxLogits"] == (1152, 17, 17)
    assert shapes["Block8"] == (2144, 8, 8)
    assert [len(network.Block35), len(network.PreAuxLogits), len(network.Block8)] == [5, 10, 5]


SLIM = {
    "slim_v1": ("googlenet_tv", {"padding": "same"}),
    "slim_v2": ("inception_v2", {}),
    "slim_v3": ("inception_v3", {}),
    "slim_v4": ("inception_v4", {}),
    "slim_resnet_v2": ("inception_resnet_v2", {}),
    "slim_resnet_v2_align(SAME)": ("inception_resnet_v2", {"padding": "same"}),
    "slim_resnet_v2_output_stride8": ("inception_resnet_v2", {"output_stride": 8}),
}


def test_all_endpoint_shapes_of_slim(shared):
    rows = read_table(shared, "slim_endpoints")
    assert len(rows) == 95
    assert {row["net"] for row in rows} == SLIM.keys()
    for net, (name, arguments) in SLIM.items():
        own = [row for row in rows if row["net"] == net]
        network = on_meta(name, aux_logits=False, **arguments)
        images = torch.zeros(1, 3, *(int(own[0]["input"]),) * 2, device="meta")
        found = network.eval()(images, return_endpoints=[row["endpoint"] for row in own])
        for row in own:
            assert found[row["endpoint"]].shape == (1, int(row["channels"]), *(int(row["hw"]),) * 2), row


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("inception_v2", {"separable": True}, "inception_v2_base"),
        ("inception_v3", {}, "inception_v3_base"),
    ],
)
def test_trunk_counts_by_slims_rule(shared, name, arguments, key):
    """Weights, beta, moving mean and variance: no gamma, no classifier, no auxiliary head."""
    expected = read_json(shared, "param_counts")["quoted_from_slim_tests"][key]
    network = on_meta(name, aux_logits=False, **arguments)
    trunk = [getattr(network, stage) for stage in network.endpoints]
    norms = sum(m.num_features for s in trunk for m in s.modules() if isinstance(m, nn.BatchNorm2d))
    assert sum(p.numel() for s in trunk for p in s.parameters()) + norms == expected


def test_alexnet_groups_and_normalisation():
    network = on_meta("alexnet")
    groups = [getattr(network, f"conv{number}").conv.groups for number in range(1, 6)]
    assert groups == [1, 2, 1, 2, 2]
    assert network.endpoints[:3] == ("conv1", "norm1", "pool1")
    assert (network.norm1.size, network.norm1.alpha, network.norm1.beta, network.norm1.k) == (
        5,
        1e-4,
        0.75,
        1.0,
    )
    tower = on_meta("alexnet_tv")
    assert not [name for name in tower.endpoints if name.startswith("norm")]
