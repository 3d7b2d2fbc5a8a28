"""Every network in other number formats and as a graph: traced, exported, compiled, checkpointed."""

import copy

import pytest
import torch
from network_cases import MODELS, every_model, images, without_dropout
from network_cases import make_shallow as make
from torch import nn

from inception.nets.output import Output


@every_model
def test_bfloat16_autocast(name):
    network = make(name).eval()
    x = images(network)
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x).float()
    assert rough.isfinite().all()
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        output = network.train()(x)
        loss = sum(part.float().square().mean() for part in (output.logits, *output.aux))
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@every_model
def test_channels_last(name):
    network = make(name).eval()
    x = images(network)
    with torch.no_grad():
        expected = network(x)
        network.to(memory_format=torch.channels_last)
        torch.testing.assert_close(
            network(x.to(memory_format=torch.channels_last)),
            expected,
            rtol=1e-4,
            atol=1e-5 * expected.abs().max().item(),
        )


@every_model
def test_float64_agrees_with_float32(name):
    network = make(name).eval()
    x = images(network)
    with torch.no_grad():
        single = network(x)
        double = network.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5 * single.abs().max().item())


@every_model
def test_gradient_checkpointing_changes_no_number(name):
    network = without_dropout(make(name)).double().train()
    twin = copy.deepcopy(network)
    twin.set_grad_checkpointing()
    x = images(network).double()
    results = []
    for one in (network, twin):
        y = x.clone().requires_grad_()
        output = one(y)
        sum(part.square().mean() for part in (output.logits, *output.aux)).backward()
        results.append((output.logits, y.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-12)
    for (key, ours), theirs in zip(twin.named_parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12, msg=key)
    stages = [getattr(twin, stage) for stage in twin.endpoints]
    norms = [layer for stage in stages for layer in stage.modules() if isinstance(layer, nn.BatchNorm2d)]
    # torch runs a checkpointed stage twice; batch norm counts its batch once all the same.
    assert {int(norm.num_batches_tracked) for norm in norms} <= {1}
    assert all(norm.track_running_stats for norm in norms)
    for (key, ours), theirs in zip(twin.named_buffers(), network.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, msg=key)
    twin.set_grad_checkpointing(False)
    assert twin.grad_checkpointing is False


VARIANTS = [
    *(pytest.param(name, {}, id=name) for name in MODELS),
    pytest.param("googlenet", {"module": "naive", "width": 0.25}, id="naive"),
    pytest.param("googlenet", {"kernel5": "3x3+3x3", "width": 0.25}, id="3x3+3x3"),
    pytest.param("googlenet_bn", {"stem": "small", "width": 0.25}, id="small-stem"),
    pytest.param(
        "googlenet", {"head": "fully_connected", "image_size": 64, "width": 0.25}, id="fully-connected"
    ),
]
every_variant = pytest.mark.parametrize(("name", "arguments"), VARIANTS)


@every_variant
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_traced_graphs_equal_the_network(name, arguments):
    network = make(name, **arguments).eval()
    x = images(network)
    with torch.no_grad():
        expected = network(x)
        assert torch.equal(torch.fx.symbolic_trace(network)(x), expected)
        exported = torch.export.export(network, (x,))
        torch.testing.assert_close(exported.module()(x), expected)
        traced = torch.jit.trace(network, x, check_trace=False)
        torch.testing.assert_close(traced(x), expected)


@every_model
def test_exports_for_any_batch(name):
    network = make(name).eval()
    batch = torch.export.Dim("batch")
    exported = torch.export.export(network, (images(network),), dynamic_shapes={"x": {0: batch}}).module()
    x = images(network, batch=3)
    with torch.no_grad():
        torch.testing.assert_close(exported(x), network(x))


@every_model
def test_fx_graph_trains_as_the_network(name):
    network = without_dropout(make(name)).train()
    twin = copy.deepcopy(network)
    traced = torch.fx.symbolic_trace(twin)
    x = images(network)
    for model in (network, traced):
        output = model(x)
        sum(part.square().mean() for part in (output.logits, *output.aux)).backward()
    for (key, ours), theirs in zip(twin.named_parameters(), network.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), key


@every_model
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_compiles_without_graph_breaks(name, training):
    torch.compiler.reset()
    network = without_dropout(make(name)).train(training)
    x = images(network)
    expected = copy.deepcopy(network)(x)
    output = torch.compile(network, fullgraph=True, backend="eager")(x)
    torch.testing.assert_close(output, expected)
    assert isinstance(output, Output if training else torch.Tensor)
