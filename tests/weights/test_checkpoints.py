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


def moved(prefix="", by=1):
    return {prefix + name: value + by for name, value in STATE.items()}


def lightning(**more):
    return {
        "state_dict": prefixed("model."),
        "pytorch-lightning_version": "2.5",
        "optimizer_states": [],
        **more,
    }


@pytest.mark.parametrize(
    "content, key",
    [
        ({"state_dict": STATE, "state_dict_ema": moved()}, "state_dict_ema"),
        ({"model": STATE, "ema": {"module": moved(), "updates": 9}}, "ema.module"),
        ({"model": STATE, "ema_model": moved("module.") | {"n_averaged": torch.tensor(9)}}, "ema_model"),
        ({"params": STATE, "params_ema": moved()}, "params_ema"),
        ({"model": STATE, "shadow": moved()}, "shadow"),
        (lightning(callbacks={"EMACallback": {"ema_state_dict": moved("model.")}}), "callbacks.EMACallback"),
        (lightning(callbacks={"EMA": {"decay": 0.9, "weights": moved("model.")}}), "callbacks.EMA.weights"),
        (
            lightning(callbacks={"StochasticWeightAveraging": {"average_model_state": moved("model.")}}),
            "average_model_state",
        ),
        ({"state_dict": prefixed("model.") | moved("ema_model.module.")}, "ema_model"),
        ({"state_dict": prefixed("net.") | moved("model_ema.")}, "model_ema"),
        (
            {"model": STATE, "ema": {"shadow_params": list(moved().values()), "decay": 0.9}},
            "ema.shadow_params",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_averages_lie(tmp_path, content, key):
    torch.save(content, tmp_path / "w.pth")
    plain, _ = import_weights(tmp_path / "w.pth", "lenet5")
    assert torch.equal(plain.state_dict["fc.bias"], STATE["fc.bias"])
    said = " ".join(plain.provenance["remarks"])
    assert key in said
    assert "--ema takes them" in said
    average, _ = import_weights(tmp_path / "w.pth", "lenet5", ema=True)
    assert torch.equal(average.state_dict["fc.bias"], STATE["fc.bias"] + 1)


def test_lightnings_weight_averaging_has_the_average_in_front(tmp_path):
    content = lightning(current_model_state=moved("model."), averaging_state={"n_averaged": torch.tensor(3)})
    torch.save(content, tmp_path / "w.ckpt")
    for ema in (False, True):
        bundle, _ = import_weights(tmp_path / "w.ckpt", "lenet5", ema=ema)
        assert torch.equal(bundle.state_dict["fc.bias"], STATE["fc.bias"])
        assert "these are averaged weights (Lightning's)" in " ".join(bundle.provenance["remarks"])


def test_averages_of_parameters_alone_take_the_statistics_of_the_others(tmp_path):
    state = build_network("inception_small", num_classes=4).state_dict()
    parameters = {
        name: value + 1 for name, value in state.items() if "running" not in name and "num_" not in name
    }
    torch.save({"model": state, "ema": parameters}, tmp_path / "w.pth")
    bundle, _ = import_weights(tmp_path / "w.pth", "inception_small", ema=True)
    assert torch.equal(bundle.state_dict["fc.bias"], state["fc.bias"] + 1)
    name = next(name for name in state if name.endswith("running_var"))
    assert torch.equal(bundle.state_dict[name], state[name])
    assert "no statistics of batch normalisation" in " ".join(bundle.provenance["remarks"])


@pytest.mark.parametrize(
    "content, text",
    [
        (
            {"student": 1, "state_dict": prefixed("student.") | moved("teacher.")},
            "two networks alike, student and",
        ),
        ({"netA": STATE, "netB": moved()}, r"several sets of weights \(netA, netB\)"),
        ({"model": STATE, "ema": {"shadow_params": [torch.zeros(1)] * 9}}, "list without names"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(tmp_path, content, text):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=text):
        import_weights(tmp_path / "w.pth", "lenet5", ema="ema" in content)


@pytest.mark.parametrize(
    "keys", [("module",), ("state", "model"), ("checkpoint",), ("best", "net"), ("model_weights",)]
)
def test_wrappers_of_other_names(tmp_path, keys):
    content = STATE
    for key in reversed(keys):
        content = {key: content, "epoch": 3}
    content["optimizer"] = {"state": {0: {"exp_avg": torch.zeros(3)}}}
    torch.save(content, tmp_path / "w.pth")
    assert import_weights(tmp_path / "w.pth", "lenet5")[1].complete


def test_a_normalisation_inside_the_network_is_said(tmp_path):
    numbers = {"0.mean": torch.tensor([0.485, 0.456, 0.406]), "0.std": torch.tensor([0.229, 0.224, 0.225])}
    torch.save(prefixed("1.") | numbers, tmp_path / "w.pth")
    remarks = " ".join(import_weights(tmp_path / "w.pth", "lenet5")[0].provenance["remarks"])
    assert "give --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225" in remarks
