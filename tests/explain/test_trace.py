"""What branches give to an answer, beside the arithmetic of a linear classifier."""

import pytest
import torch
from explain_support import hooks, make_network

from inception.explain.attribution import Question
from inception.explain.trace import branch_picture, map_picture, share_by_kind, trace_branches


def test_branches_of_the_last_module_add_up_to_the_logit(network, images):
    """Pooling and classifier are linear: activation times gradient sums to the logit without its bias."""
    traces = trace_branches(network, images[0], Question(2))
    last = traces[-1]
    with torch.no_grad():
        logit = network.eval()(images[:1])[0, 2] - network.fc.bias[2]
    assert last.module == "inception5b"
    assert sum(share.contribution for share in last.shares) == pytest.approx(float(logit), rel=1e-3, abs=1e-4)


def test_shares_are_those_of_the_modules_channels(network, images):
    traces = trace_branches(network, images[0], Question(2))
    assert network.training
    assert hooks(network) == 0
    assert [trace.module for trace in traces] == [n for n in network.endpoints if n.startswith("inception")]
    assert all([share.kind for share in trace.shares] == ["1x1", "3x3", "5x5", "pool"] for trace in traces)
    for trace in traces:
        assert sum(share.activation for share in trace.shares) == pytest.approx(1)
        assert sum(share.gradient for share in trace.shares) == pytest.approx(1)
    with torch.no_grad():
        features = network.eval().forward_endpoints(images[:1], ["inception4b"])["inception4b"][0]
    sums = features.abs().sum(dim=(1, 2)).split([share.channels for share in traces[3].shares])
    expected = [float(part.sum() / features.abs().sum()) for part in sums]
    assert [share.activation for share in traces[3].shares] == pytest.approx(expected, rel=1e-4)
    kinds = share_by_kind(traces)
    assert sum(pair[0] for pair in kinds.values()) == pytest.approx(1)


def test_a_head_sees_only_the_modules_below_it(aux_network, images):
    traces = trace_branches(aux_network, images[0], Question(1, head="aux1"))
    assert [trace.module for trace in traces] == ["inception3a", "inception3b", "inception4a"]


def test_windows_that_stand_behind_each_other_add_up():
    network = make_network("inception_v3", width=0.05, stem="large", aux_logits=False)
    traces = trace_branches(network, torch.randn(3, 79, 79), Question(0))
    kinds = {share.kind for trace in traces for share in trace.shares}
    assert {"1x1", "5x5", "7x7", "13x13", "pool"} <= kinds


def test_networks_without_branches_have_no_trace_but_maps():
    network = make_network("lenet5", width=1.0, stem="large")
    image = torch.randn(3, 32, 32)
    assert trace_branches(network, image, Question(0)) == ()
    assert map_picture(network, image, 3).width > 3 * 84
    assert network.training


def test_pictures(network, images):
    traces = trace_branches(network, images[0], Question(2))
    assert branch_picture(traces, "title").height > 20 * len(traces)
    assert map_picture(network, images[0], 2).height > 84 * len(network.endpoints)
