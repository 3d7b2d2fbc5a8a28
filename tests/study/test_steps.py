"""Experiment 8: variants differ by the change they are named for, and by nothing else."""

import pytest
import torch
from torch import nn

from inception.nets.complexity import endpoint_shapes
from inception.study import steps
from inception.study.statistics import Estimate

SMALL = {"stem": "small", "width": 0.05, "num_classes": 4}


def kernels(name: str) -> list[tuple[int, int]]:
    with torch.device("meta"):
        network = steps.VARIANTS[name].build()
    return [part.kernel_size for part in network.modules() if isinstance(part, nn.Conv2d)]


def test_factorised_convolutions_are_undone_and_done():
    own = kernels("v3")
    assert (7, 7) not in own
    whole = kernels("7x7")
    assert whole.count((7, 7)) == own.count((1, 7)) == own.count((7, 1))
    assert (1, 7) not in whole and (7, 1) not in whole
    assert own.count((5, 5)) == 3 and (5, 5) not in kernels("3x3")
    assert kernels("3x3").count((3, 3)) == own.count((3, 3)) + 6


def test_whole_7x7_costs_what_arithmetic_says():
    # Pairs of V3's 17x17 modules (in -> middle -> out) by their table, and the one before Mixed_7a's stride.
    inner = (128, 160, 160, 192)
    triples = [t for n in inner for t in ((n, n, 192), (n, n, n), (n, n, 192))] + [(192, 192, 192)]
    more = sum(49 * i * o - 7 * (i * m + m * o) for i, m, o in triples) * 17 * 17
    costs = steps.full_costs()
    assert costs["7x7"][1] - costs["v3"][1] == more


@pytest.mark.parametrize("name", steps.VARIANTS)
def test_every_variant_gives_maps_of_the_same_shape(name):
    variant = steps.VARIANTS[name]
    base = "scaled" if variant.network != "inception_v3" else "v3"
    shapes, wanted = (endpoint_shapes(item.build(**SMALL), 32) for item in (variant, steps.VARIANTS[base]))
    assert {stage: shape for stage, shape in shapes.items() if stage in wanted} == wanted


def test_grid_reductions_in_other_orders():
    costs = steps.full_costs()
    # Szegedy et al. 2016, section 5: pooling last is about three times as expensive as pooling first.
    assert costs["pool first"][1] < costs["v3"][1] < costs["convolve first"][1]


def test_heads_and_scales():
    plain, normalised = (steps.VARIANTS[name].build(**SMALL) for name in ("plain head", "bn head"))
    norms = [
        sum(isinstance(part, nn.BatchNorm2d) for part in network.aux1.modules())
        for network in (plain, normalised)
    ]
    assert norms == [0, 2]
    output = plain.train()(torch.randn(2, 3, 32, 32))
    assert [aux.shape for aux in output.aux] == [(2, 4)]
    scaled, unscaled = (steps.VARIANTS[name].build(**SMALL) for name in ("scaled", "unscaled"))
    assert {block.scale for block in unscaled.Block35} == {1.0} != {block.scale for block in scaled.Block35}


@pytest.mark.parametrize(
    ("fewer", "gain", "verdict"),
    [
        (True, Estimate(0.0, -0.01, 0.01, 3), "confirmed"),
        (True, Estimate(0.0, -0.1, 0.1, 3), "not reproducible here"),
        (True, Estimate(-0.1, -0.15, -0.05, 3), "corrected"),
        (False, Estimate(0.1, 0.05, 0.15, 3), "corrected"),
    ],
)
def test_a_saving_is_confirmed_only_without_loss(fewer, gain, verdict):
    assert steps._saving(fewer, gain) == verdict
