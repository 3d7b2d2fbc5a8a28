"""Our networks against independent implementations with the same weights; writes docs/conformance.md.

Run `python tests/nets/conformance.py --write` after a change of the networks.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from light_graphs import fill_with_random_weights, graph_logits, light_graph, our_state, use_ceil_pools
from peer_names import PEERS as NAMES
from peer_names import peer_name
from torch import Tensor, nn

from inception.nets.complexity import profile
from inception.nets.network import Network
from inception.nets.registry import build_network, list_models

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
CLASSES = 20


@dataclass(frozen=True)
class Reference:
    """Another implementation of a network, and the arguments with which ours is the same."""

    name: str
    make: Callable[[], nn.Module]
    arguments: dict[str, object]
    size: tuple[int, int]


def torchvision_model(name: str) -> Callable[[], nn.Module]:
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") or "vgg" in name else {}
    return lambda: getattr(torchvision.models, name)(num_classes=CLASSES, **extra)


def timm_model(name: str) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=CLASSES)


VGGS = [f"vgg{depth}{suffix}" for depth in (11, 13, 16, 19) for suffix in ("", "_bn")]
# Sizes that leave maps of more than one pixel, of odd and unequal sides.
PEERS: list[tuple[str, Reference]] = [
    ("googlenet_tv", Reference("torchvision", torchvision_model("googlenet"), {}, (224, 224))),
    ("inception_v3", Reference("torchvision", torchvision_model("inception_v3"), {}, (299, 299))),
    (
        "inception_v3",
        Reference("timm", timm_model("inception_v3"), {"aux_logits": False}, (171, 203)),
    ),
    (
        "inception_v4",
        Reference("timm", timm_model("inception_v4"), {"aux_logits": False}, (171, 203)),
    ),
    (
        "inception_resnet_v2",
        Reference("timm", timm_model("inception_resnet_v2"), {"aux_logits": False}, (171, 203)),
    ),
    ("alexnet_tv", Reference("torchvision", torchvision_model("alexnet"), {}, (224, 224))),
    *((name, Reference("torchvision", torchvision_model(name), {}, (96, 71))) for name in VGGS),
]
# (network, graph, arguments, whether its pools are set to round up)
GRAPHS: list[tuple[str, str, dict[str, object], bool]] = [
    ("googlenet", "light_inception_v1", {"aux_logits": False}, True),
    ("inception_v2", "light_inception_v2", {"padding": "ceil", "bn_eps": 1e-5}, False),
    ("alexnet", "light_bvlc_alexnet", {}, True),
    ("vgg19", "light_vgg19", {}, False),
]
# What no runnable reference exists for: the numbers they are held to.
COUNTED = {
    "googlenet_5h": "the released weights (`inception import`)",
    "googlenet_bn": "counts: Table 1 with batch norm",
    "inception_v2_caffe": "counts: Cadene's `bninception`",
    "inception_resnet_v1": "counts: facenet",
    "inception_resnet_v2_paper": "the paper's figures; blocks as `inception_resnet_v2`",
    "inception_small": "counts by hand (this project's own)",
    "lenet5": 'counts: "Dive into Deep Learning" (at 1 channel: 61,706)',
    "nin": 'counts: "Dive into Deep Learning"',
}


def liven(model: nn.Module) -> None:
    """Random weights and statistics under which activations keep their scale through all layers."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                scale = (2 / module.weight[0].numel()) ** 0.5
                module.weight.normal_(0, scale, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.7, 1.3, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.7, 1.3, generator=generator)


def copied(name: str, reference: Reference) -> tuple[Network, nn.Module]:
    """Ours and theirs with the same weights, both in training mode."""
    theirs = reference.make().train()
    liven(theirs)
    with torch.device("meta"):
        ours = build_network(name, num_classes=CLASSES, **reference.arguments)
    state = theirs.state_dict()
    names = {key: peer_name(key, NAMES.get(name, ())) for key in ours.state_dict()}
    if sorted(names.values()) != sorted(state):
        raise AssertionError(f"{name} and {reference.name}: {set(names.values()) ^ set(state)}")
    # Weights are shared, to save memory; the statistics of batch norm, which training moves, are not.
    moving = {key for key, _ in ours.named_buffers()}
    copies = {key: state[name].clone() if key in moving else state[name] for key, name in names.items()}
    ours.load_state_dict(copies, assign=True)
    return ours, theirs


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def peer_difference(name: str, reference: Reference) -> float:
    """Largest difference of the logits, relative to the largest logit."""
    ours, theirs = copied(name, reference)
    x = torch.randn(1, 3, *reference.size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = theirs.eval()(x)
        if not 0.1 < expected.abs().max() < 1e6 or expected.std() < 1e-2:
            raise AssertionError(f"{name}: the logits prove nothing: {expected}")
        return relative(ours.eval()(x), expected)


def graph_difference(name: str, graph: str, arguments: dict[str, object], ceil: bool) -> float:
    """Largest difference of the logits, relative to the largest logit."""
    generator = np.random.default_rng(0)
    model = light_graph(graph)
    values = fill_with_random_weights(model, generator)
    if ceil:
        use_ceil_pools(model)
    images = (generator.standard_normal((1, 3, 224, 224)) * 60).astype(np.float32)
    expected = torch.from_numpy(graph_logits(model, images))
    with torch.device("meta"):
        network = build_network(name, **arguments)
    network.load_state_dict(our_state(values), assign=True)
    restore_constants(network, name, arguments)
    with torch.no_grad():
        return relative(network.eval()(torch.from_numpy(images)), expected)


def restore_constants(network: Network, name: str, arguments: dict[str, object]) -> None:
    """Buffers outside the state (response normalisation's) of a network built without storage."""
    buffers = dict(network.named_buffers())
    if not any(buffer.is_meta for buffer in buffers.values()):
        return
    for path, module in build_network(name, **{**arguments, "num_classes": 1}).named_modules():
        for key, buffer in module.named_buffers(recurse=False):
            if buffers[f"{path}.{key}"].is_meta:
                setattr(network.get_submodule(path), key, buffer)


def counts(name: str) -> tuple[int, int]:
    """Parameters and multiply-adds without auxiliary heads, at the network's own size and outputs."""
    with torch.device("meta"):
        network = build_network(name, aux_logits=False)
    costs = profile(network, network.image_size)
    return sum(cost.parameters for cost in costs), sum(cost.multiply_adds for cost in costs)


def rows() -> list[tuple[str, str]]:
    """(network, reference) of every line of the page."""
    pairs = [(name, reference.name) for name, reference in PEERS]
    pairs += [(name, f"ONNX `{graph}`") for name, graph, _, _ in GRAPHS]
    pairs += list(COUNTED.items())
    return sorted(pairs, key=lambda pair: (list_models().index(pair[0]), pair[1]))


def difference(name: str, reference: str) -> float | None:
    """What is measured for one line; None where there is nothing to run."""
    for peer, other in PEERS:
        if (peer, other.name) == (name, reference):
            return peer_difference(name, other)
    for network, graph, arguments, ceil in GRAPHS:
        if (network, f"ONNX `{graph}`") == (name, reference):
            return graph_difference(network, graph, arguments, ceil)
    return None


HEAD = """# Conformance

"""
HEAD += (
    "Each network beside an independent implementation with the same random weights: the largest difference "
    "of any logit, divided by the largest logit, in float32. Parameters and multiply-adds (MACs) are counted "
    "on the live model without auxiliary heads, at its own image size and number of outputs. Written by "
    "`python tests/nets/conformance.py --write`; `tests/nets/test_conformance.py` measures again."
)
HEAD += """

| network | parameters | MACs | reference | measured difference |
|---|--:|--:|---|--:|
"""


def line(name: str, reference: str, measured: str) -> str:
    parameters, macs = counts(name)
    return f"| `{name}` | {parameters:,} | {macs:,} | {reference} | {measured} |"


def page() -> str:
    lines = []
    for name, reference in rows():
        measured = difference(name, reference)
        lines.append(line(name, reference, "" if measured is None else f"{measured:.1e}"))
        print(lines[-1], flush=True)
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(__doc__)
