"""The arithmetic of many devices: closed forms, and the tables that the documentation prints."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import torch

from inception.errors import UsageError
from inception.nets.registry import build_network
from inception.train.scaling import Cluster, Work, step_times, work_of

ROOT = Path(__file__).resolve().parents[2]
WORK = Work(operations=1e9, parameters=10_000_000, norms=50, layers=100)


def test_work_is_that_of_the_network():
    with torch.device("meta"):
        network = build_network("googlenet_bn")
    work = work_of("googlenet_bn")
    assert work.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert work.norms == sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    # 1.58 billion multiply-adds of the trunk, a little for the heads.
    assert 3.1e9 < work.operations < 3.4e9


def test_one_device_waits_for_nobody():
    times = step_times(WORK, Cluster(operations_per_s=1e12, launch_s=0), 1, 100)
    assert (times.norms, times.gradients, times.exposed) == (0, 0, 0)
    assert times.computing == pytest.approx(3 * 100 * 1e9 / 1e12)


def test_the_ring_sends_nearly_all_gradients_twice():
    cluster = Cluster(latency_s=0, between_bytes_per_s=1e9)
    for devices in (16, 64, 512):
        times = step_times(WORK, cluster, devices, devices)
        assert times.gradients == pytest.approx(2 * (devices - 1) / devices * 40e6 / 1e9)


def test_what_computing_does_not_hide():
    """40 MB in two buckets: the last one waits in any case, the first only when computing is short."""
    cluster = Cluster(latency_s=0, between_bytes_per_s=1e9, launch_s=0, operations_per_s=1e12)
    long = step_times(WORK, cluster, 16, 16 * 1000)
    assert long.exposed == pytest.approx(long.gradients / 2)
    short = step_times(WORK, cluster, 16, 16)
    assert short.exposed == pytest.approx(short.gradients - 2 / 3 * short.computing)
    assert short.limit == "gradients"


def test_shared_norms_cost_hops():
    cluster = Cluster(latency_s=1e-5)
    assert step_times(WORK, cluster, 64, 640).norms == pytest.approx(4 * 50 * 2 * 6 * 1e-5)
    assert step_times(WORK, cluster, 64, 640, shared_norms=False).norms == 0


@pytest.mark.parametrize(
    ("changed", "limit"),
    [
        ({"decoded_per_core": 1.0}, "decoding"),
        ({"storage_bytes_per_s": 1e6}, "reading"),
        ({"operations_per_s": 1e9}, "computing"),
        ({"latency_s": 0.01}, "norms"),
        ({"between_bytes_per_s": 1e6}, "gradients"),
    ],
)
def test_the_narrowest_place_is_named(changed, limit):
    times = step_times(WORK, Cluster(**changed), 64, 6400)
    assert times.limit == limit
    assert times.images_per_s == pytest.approx(6400 / times.seconds)


def test_many_kernels_cannot_be_faster_than_their_starts():
    assert step_times(WORK, Cluster(), 1, 1).computing == pytest.approx(3 * 100 * 5e-6)


@pytest.mark.parametrize(("devices", "batch"), [(0, 8), (16, 8)])
def test_devices_without_images_are_refused(devices, batch):
    with pytest.raises(UsageError, match="cannot be divided"):
        step_times(WORK, Cluster(), devices, batch)


def test_the_documented_tables_are_what_the_commands_print():
    spec = importlib.util.spec_from_file_location("scaling_benchmark", ROOT / "benchmarks" / "scaling.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    commands = re.findall(r"(?m)^python benchmarks/scaling\.py (--arithmetic.*)$", page)
    assert len(commands) >= 3
    for command in commands:
        options = benchmark.parser().parse_args(shlex.split(command))
        options.image_size = options.image_size or 224
        assert "\n".join(benchmark.markdown(benchmark.computed(options))) in page, command
