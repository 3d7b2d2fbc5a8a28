"""The summary prints the paper's Table 1 from the live model; the profile leaves the model alone."""

import json

import pytest
import torch
from facts import read_json, read_table
from network_cases import on_meta
from torch import nn

from inception.errors import UsageError
from inception.nets.complexity import endpoint_shapes, profile
from inception.nets.network import Network, Plan
from inception.nets.registry import build_network, list_models
from inception.nets.rows import Conv, Pool, Style
from inception.nets.summary import HEADINGS, summarize

# Table 1's first columns, typed from the paper: type, patch size/stride, output size, depth.
PAPER = [
    ("convolution", "7×7/2", "112×112×64", "1"),
    ("max pool", "3×3/2", "56×56×64", "0"),
    ("convolution", "3×3/1", "56×56×192", "2"),
    ("max pool", "3×3/2", "28×28×192", "0"),
    ("inception (3a)", "", "28×28×256", "2"),
    ("inception (3b)", "", "28×28×480", "2"),
    ("max pool", "3×3/2", "14×14×480", "0"),
    ("inception (4a)", "", "14×14×512", "2"),
    ("inception (4b)", "", "14×14×512", "2"),
    ("inception (4c)", "", "14×14×512", "2"),
    ("inception (4d)", "", "14×14×528", "2"),
    ("inception (4e)", "", "14×14×832", "2"),
    ("max pool", "3×3/2", "7×7×832", "0"),
    ("inception (5a)", "", "7×7×832", "2"),
    ("inception (5b)", "", "7×7×1024", "2"),
    ("avg pool", "7×7/1", "1×1×1024", "0"),
    ("dropout (40%)", "", "1×1×1024", "0"),
    ("linear", "", "1×1×1000", "1"),
    ("softmax", "", "1×1×1000", "0"),
]


@pytest.fixture(scope="module")
def googlenet():
    return summarize(build_network("googlenet"))


def test_lines_of_the_paper(googlenet):
    headings, texts = googlenet.table()
    assert headings == HEADINGS
    assert [line[:4] for line in texts[:19]] == PAPER
    assert texts[2][4:10] == ("", "64", "192", "", "", "")
    assert texts[19][0] == "total"
    assert texts[19][3] == "22"
    assert [line[0] for line in texts[20:]] == ["auxiliary on 4a", "auxiliary on 4d"]
    assert googlenet.notes == ()


def test_numbers_of_the_facts(shared, googlenet):
    lines = [row for row in googlenet.rows if row.parameters]
    facts = read_table(shared, "googlenet_table1")
    for line, row in zip(lines, facts, strict=True):
        assert line.parameters == int(row["weights"]) + int(row["biases"]), row
        assert line.operations == int(row["macs"]), row
        assert line.output == (int(row["out_hw"]), int(row["out_hw"]), int(row["out_ch"])), row
        columns = ("n1x1", "reduce3x3", "n3x3", "reduce5x5", "n5x5", "pool_proj")
        names = ("n1x1", "r3x3", "n3x3", "r5x5", "n5x5", "pool_proj")
        for column, name in zip(columns, names, strict=True):
            expected = int(row[name]) if row[name] else None
            assert getattr(line.branches, column) == expected, (row, column)
    totals = read_json(shared, "googlenet_totals")
    assert googlenet.total.parameters == totals["main_total"]
    assert googlenet.total.operations == totals["main_macs"]
    assert [row.operations for row in googlenet.auxiliary] == [totals["aux1"]["macs"], totals["aux2"]["macs"]]
    assert googlenet.to_dict()["parameters_with_auxiliary"] == totals["with_aux_total"]


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("size", [None, (101, 133)], ids=["own", "odd"])
def test_every_network_has_a_table(name, size):
    network = on_meta(name, num_classes=7)
    summary = summarize(network, size)
    content = json.loads(json.dumps(summary.to_dict()))
    assert content["image_size"] == list(size or (network.image_size,) * 2)
    assert content["architecture"] == name
    assert summary.total.parameters + sum(row.parameters for row in summary.auxiliary) == sum(
        p.numel() for p in network.parameters()
    )
    headings, texts = summary.table()
    assert {len(line) for line in texts} == {len(headings)}
    shapes = endpoint_shapes(network, size or network.image_size)
    for row in summary.rows:
        if row.stages and row.stages[-1] in shapes:
            channels, height, width = shapes[row.stages[-1]]
            assert row.output == (height, width, channels)
    named = [stage for row in summary.rows for stage in row.stages if stage in network.endpoints]
    assert named == list(network.endpoints)


def test_shapes_are_those_of_a_real_run():
    network = build_network("googlenet_5h", num_classes=3).eval()
    shapes = endpoint_shapes(network, (97, 130))
    with torch.no_grad():
        maps = network(torch.randn(1, 3, 97, 130), return_endpoints=network.endpoints)
    assert {name: tuple(x.shape[1:]) for name, x in maps.items()} == shapes


def test_channels_come_from_the_live_model():
    network = build_network("googlenet", width=0.5)
    network.inception3a.b1x1.conv = nn.Conv2d(96, 5, 1)
    network.inception3b.b1x1.conv = nn.Conv2d(101, 64, 1)
    network.inception3b.b3x3_reduce.conv = nn.Conv2d(101, 64, 1)
    network.inception3b.b5x5_reduce.conv = nn.Conv2d(101, 16, 1)
    network.inception3b.pool_proj.conv = nn.Conv2d(101, 32, 1)
    line = next(row for row in summarize(network).rows if row.type == "inception (3a)")
    assert line.branches.n1x1 == 5
    assert line.branches.n3x3 == 64
    assert line.output == (28, 28, 101)


def branch_numbers(line) -> tuple:
    branches = line.branches
    return (
        branches.n1x1,
        branches.reduce3x3,
        branches.n3x3,
        branches.reduce5x5,
        branches.n5x5,
        branches.pool_proj,
    )


@pytest.mark.parametrize(
    ("arguments", "numbers", "depth", "notes"),
    [
        ({}, (64, 96, 128, 16, 32, 32), 2, ()),
        ({"module": "naive"}, (64, None, 128, None, 32, None), 1, ()),
        (
            {"kernel5": "3x3+3x3"},
            (64, 96, 128, 16, 32, 32),
            3,
            ("#5×5 is 2 stacked 3×3 convolutions",),
        ),
        ({"kernel5": "3x3"}, (64, 96, 128, 16, 32, 32), 2, ("#5×5 is one 3×3 convolution",)),
        ({"width": 2.0}, (128, 192, 256, 32, 64, 64), 2, ()),
        ({"stem": "small"}, (64, 96, 128, 16, 32, 32), 2, ()),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["googlenet", "googlenet_bn"])
def test_ablations(name, arguments, numbers, depth, notes):
    summary = summarize(build_network(name, **arguments))
    line = next(row for row in summary.rows if row.type == "inception (3a)")
    assert branch_numbers(line) == numbers
    assert line.depth == depth
    assert summary.notes == notes


def test_torchvision_names_are_read_too():
    summary = summarize(build_network("googlenet_tv"))
    line = next(row for row in summary.rows if row.type == "inception (4e)")
    assert branch_numbers(line) == (256, 160, 320, 32, 128, 128)
    assert summary.total.parameters == 6_624_904
    assert summary.total.operations == 1_498_376_192


def test_a_network_of_another_kind():
    """No Inception modules: the columns about them go, and a 1x1 convolution keeps its own line."""
    rows = (Conv("conv1", 8, 3), Conv("conv2", 8, 1), Conv("conv3", 16, 3), Pool("pool1", 2, 2))
    network = Network(Plan(rows=rows, style=Style(), dropout=0.0, image_size=16), num_classes=5)
    headings, texts = summarize(network).table()
    assert headings == ("type", "patch size/stride", "output size", "depth", "params", "ops")
    assert texts == [
        ("convolution", "3×3/1", "16×16×8", "1", "224", "55.3K"),
        ("convolution", "1×1/1", "16×16×8", "1", "72", "16.4K"),
        ("convolution", "3×3/1", "16×16×16", "1", "1,168", "294.9K"),
        ("max pool", "2×2/2", "8×8×16", "0", "", ""),
        ("avg pool", "8×8/1", "1×1×16", "0", "", ""),
        ("linear", "", "1×1×5", "1", "85", "0.1K"),
        ("softmax", "", "1×1×5", "0", "", ""),
        ("total", "", "", "4", "1,549", "366.7K"),
    ]


def test_grouped_convolutions_cost_less():
    rows = (Conv("conv1", 8, 3), Conv("conv2", 8, 5))
    network = Network(Plan(rows=rows, style=Style(), image_size=16), num_classes=5)
    network.conv2.conv = nn.Conv2d(8, 8, 5, padding=2, groups=2)
    cost = next(cost for cost in profile(network, (16, 10)) if cost.path == "conv2.conv")
    assert cost.multiply_adds == 16 * 10 * 8 * (8 // 2) * 5 * 5
    assert cost.activations == 16 * 10 * 8
    assert cost.parameters == 8 * 4 * 25 + 8


def test_a_network_without_classifier_ends_with_its_features():
    summary = summarize(build_network("googlenet", num_classes=0, global_pool="", dropout=0.0))
    assert summary.rows[-1].type == "inception (5b)"


def test_the_model_is_left_as_it_is():
    network = build_network("googlenet", num_classes=3).train()
    network.inception4a.eval()
    ran = []
    network.conv1.register_forward_hook(lambda *_: ran.append("hook"))
    network.conv1.conv.register_forward_pre_hook(lambda *_: ran.append("pre-hook"))
    modes = [module.training for module in network.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    values = {key: value.clone() for key, value in network.state_dict().items()}
    summarize(network, 64)
    profile(network, (64, 80))
    assert ran == []
    assert [module.training for module in network.modules()] == modes
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()] == hooks
    assert all(
        parameter.device.type == "cpu" and parameter.requires_grad for parameter in network.parameters()
    )
    assert all(torch.equal(value, values[key]) for key, value in network.state_dict().items())
    network(torch.randn(2, 3, 64, 64))
    assert ran == ["pre-hook", "hook"]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (30, "at least 31 x 31 pixels, got 30 x 30"),
        (0, "at least one pixel"),
        ((64, -1), "at least one pixel"),
    ],
)
def test_impossible_sizes(size, message):
    network = build_network("googlenet", num_classes=3)
    for measure in (summarize, profile, endpoint_shapes):
        with pytest.raises(UsageError, match=message):
            measure(network, size)


def test_fully_connected_head_of_another_size():
    network = build_network("googlenet", head="fully_connected", image_size=64, num_classes=3)
    assert [row.type for row in summarize(network).rows[-4:]] == [
        "linear",
        "dropout (40%)",
        "linear",
        "softmax",
    ]
    with pytest.raises(UsageError, match="fully connected head needs maps of 2 x 2, got 7 x 7"):
        summarize(network, 224)


def test_any_dtype():
    assert (
        summarize(build_network("googlenet").bfloat16()).total == summarize(build_network("googlenet")).total
    )
