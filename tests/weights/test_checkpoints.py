"""Checkpoints of training scripts: wrappers, prefixes, averaged weights, and what lies beside tensors."""

import argparse
import collections
import datetime
import pathlib

import numpy as np
import pytest
import torch

from inception.errors import WeightsError
from inception.nets.registry import build_network
from inception.weights.importer import import_weights

STATE = build_network("lenet5", num_classes=4).state_dict()


def prefixed(prefix):
    return {prefix + name: value for name, value in STATE.items()}


@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("a")),
        pathlib.Path("runs/1"),
        pathlib.PureWindowsPath("C:/runs"),
        collections.defaultdict(list, a=[1]),
        collections.Counter("aab"),
        np.float64(0.5),
        np.float32(0.5),
        np.dtype("int64"),
        datetime.datetime(2026, 1, 1),
        datetime.timedelta(1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_harmless_values_beside_the_tensors(tmp_path, beside):
    torch.save({"model": STATE, "args": beside, "epoch": 3}, tmp_path / "w.pth")
    assert import_weights(tmp_path / "w.pth", "lenet5")[1].complete


def test_a_whole_model_is_refused_by_its_class(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.linear\.Linear.*save plain tensors"):
        import_weights(tmp_path / "w.pth", "lenet5")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "net.module.", "module._orig_mod.", "backbone."])
def test_prefixes_are_taken_off_and_said(tmp_path, prefix):
    torch.save(prefixed(prefix) | {"n_averaged": torch.tensor(3)}, tmp_path / "w.pth")
    bundle, report = import_weights(tmp_path / "w.pth", "lenet5")
    assert report.complete
    assert f"the prefix {prefix} was taken off the names" in bundle.provenance["remarks"]
    assert "left out, as no part of the network: n_averaged" in bundle.provenance["remarks"]


@pytest.mark.parametrize("ema", [False, True])
def test_averaged_weights_are_said_and_taken_on_request(tmp_path, ema):
    averaged = {name: value + 1 for name, value in prefixed("module.").items()}
    torch.save({"model": STATE, "model_ema": averaged}, tmp_path / "w.pth")
    bundle, _ = import_weights(tmp_path / "w.pth", "lenet5", ema=ema)
    assert torch.equal(bundle.state_dict["fc.bias"], STATE["fc.bias"] + int(ema))
    assert any("model_ema" in remark for remark in bundle.provenance["remarks"])
