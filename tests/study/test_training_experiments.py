"""Experiments 3, 4 and 6 to 8: what they compare is what they say, and quick runs fill every table."""

import pytest
import torch
from facts import read_json

from inception.study import auxiliary, budget, lineage, pooling
from inception.study.catalog import EXPERIMENTS
from inception.study.experiment import VERDICTS, Options


def test_heads_stand_where_they_are_said_to():
    for name, taps in (
        ("4a, 4d", ["inception4a", "inception4d"]),
        ("4a, 4b", ["inception4a", "inception4b"]),
    ):
        network = auxiliary.network(name, 10, width=0.1)
        assert list(network.aux_taps.values()) == taps
        output = network.train()(torch.randn(2, 3, 32, 32))
        assert [tuple(aux.shape) for aux in output.aux] == [(2, 10), (2, 10)]
    assert auxiliary.network("none", 10, width=0.1).aux_taps == {}
    assert auxiliary.network("30%", 10, width=0.1).aux1.dropout.p == 0.3


def test_networks_of_a_seed_start_from_the_same_convolutions():
    weights = []
    for name in auxiliary.NAMES:
        torch.manual_seed(3)
        weights.append(auxiliary.network(name, 10, width=0.1).inception5b.b3x3.conv.weight)
    assert all(torch.equal(weight, weights[0]) for weight in weights[1:])


def test_gradient_norm_is_that_of_all_parameters():
    network = auxiliary.network("none", 4, width=0.1).train()
    network(torch.randn(2, 3, 32, 32)).logits.sum().backward()
    flat = torch.cat([parameter.grad.flatten() for parameter in network.inception3a.parameters()])
    assert auxiliary.gradient_norm(network, "inception3a") == pytest.approx(float(flat.norm()), rel=1e-5)


def test_mean_norm_takes_a_part_of_training():
    runs = [{"conv1": [(float(step), float(step)) for step in range(10)]}]
    assert auxiliary.mean_norm(runs, "conv1") == [4.5]
    assert auxiliary.mean_norm(runs, "conv1", (0.0, 0.1)) == [0.0]
    assert auxiliary.mean_norm(runs, "conv1", (0.5, 1.0)) == [7.0]


def test_budgets_are_equal():
    target = budget.operations(budget.network("reduced", 10, budget.TARGET_WIDTH))
    for name in budget.NAMES:
        width = budget.width_for(lambda width, name=name: budget.network(name, 10, width), target)
        assert budget.operations(budget.network(name, 10, width)) == pytest.approx(target, rel=0.06), name


def test_plain_stacks_have_the_layers_they_are_named_for():
    for name, layers in (("plain", 10), ("plain, deep", 18), ("nin", 9)):
        network = budget.network(name, 10, 0.2)
        assert sum(isinstance(part, torch.nn.Conv2d) for part in network.modules()) == layers


def test_heads_of_the_pooling_experiment():
    whole, head = pooling.parameters("average", True, 1000)
    assert (whole, head) == (6_998_552, 1_025_000)
    whole, head = pooling.parameters("fully connected", True, 1000)
    assert head == 1024 * 7 * 7 * 1024 + 1024 + 1_025_000


def test_costs_of_the_family_are_the_verified_ones(shared):
    facts = read_json(shared, "param_counts")["computed_by_instantiation"]
    found = lineage.costs()
    for name, fact in (
        ("v3", "timm_inception_v3"),
        ("v4", "timm_inception_v4"),
        ("resnet v2", "timm_inception_resnet_v2"),
    ):
        assert found[name][1:] == (facts[fact]["total"], facts[fact]["macs"]), name
    assert found["v1"] == (224, 6_998_552, 1_582_671_872)


@pytest.mark.parametrize(
    "experiment", [item for item in EXPERIMENTS if item.defaults.data], ids=lambda e: e.id
)
def test_quick_run_fills_everything(experiment, monkeypatch):
    for module, names in ((auxiliary, ("WIDTH",)), (pooling, ("WIDTH",))):
        for name in names:
            monkeypatch.setattr(module, name, 0.05)
    for module in (budget, lineage):
        monkeypatch.setattr(module, "TARGET_WIDTH", 0.1)
        monkeypatch.setattr(module, "width_for", lambda make, target: 0.1)
    options = experiment.chosen(Options(quick=True, images=32, seeds=1))
    report = experiment.run(options, lambda _: None)
    assert report.seeds == (0,)
    assert all(finding.verdict in VERDICTS for finding in report.findings)
    assert all(text.en and text.zh for f in report.findings for text in (f.claim, f.explanation))
    assert all(len(row) == len(table.heads) for table in report.tables for row in table.rows)
    assert report.setting["training images"] == "32"
