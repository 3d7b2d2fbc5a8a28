"""Time and memory of modules."""

import torch
from torch import nn

from inception.runtime.timing import interleaved
from inception.study.cost import peak_activation_bytes, weight_bytes


def test_works_take_turns():
    calls: list[str] = []
    works = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = interleaved(works, rounds=3, warm_up=1)
    assert calls == list("ab" + "aabb" * 3)
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_peak_counts_what_lives_at_once():
    maps = 8 * 8 * 4
    chain = nn.Sequential(nn.Conv2d(2, 16, 1), nn.ReLU(inplace=True), nn.Conv2d(16, 4, 1), nn.Conv2d(4, 4, 1))
    # The caller keeps the input; the wide map goes when the third is there.
    assert peak_activation_bytes(chain, (1, 2, 8, 8)) == (2 + 16 + 4) * maps
    copying = nn.Sequential(nn.Conv2d(2, 16, 1), nn.ReLU())
    assert peak_activation_bytes(copying, (1, 2, 8, 8)) == (2 + 16 + 16) * maps


def test_measuring_leaves_the_module_as_it_is():
    module = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    peak_activation_bytes(module, (1, 2, 4, 4))
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert weight_bytes(module) == 4 * (6 + 3 + 4 * 3) + 8  # the counter of batches is int64
