"""Which rewrites a network is given: those that always pay, and those that a measurement decides."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from inception.nets.layers import AvgPool, ConvBlock, LocalResponseNorm
from inception.nets.network import Network
from inception.runtime import rewrites
from inception.runtime.onnx_graph import to_onnx
from inception.runtime.timing import Work, interleaved, ratio
from inception.weights.bundle import Bundle

GAIN = 0.99
"""A rewrite is kept when the median of its time divided by the time without it is at most this: it costs
nothing but time, and less than a hundredth cannot be told from noise."""
SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 3.0, 15, 61
"""Each rewrite is measured for about so long, within these numbers of rounds."""


@dataclass(frozen=True)
class Form:
    """The rewrites that pay with one engine and not with another.

    Attributes:
        response_norm: LRN as a banded convolution, or as the engine's own operator.
        merged: 1x1 convolutions over one input as one (`rewrites.merge_siblings`).
        swapped: average pools after their convolutions (`rewrites.swap_average_pools`).
        blocks: the first convolution over 2x2 blocks (`rewrites.space_to_depth`).
    """

    response_norm: Literal["banded", "operator"] = "banded"
    merged: bool = False
    swapped: bool = False
    blocks: bool = False


def rewritten(bundle: Bundle, form: Form = Form()) -> nn.Module:
    """The bundle's network on pixels 0..255, in evaluation mode.

    Batch norm, residual factors and normalisation are folded, and what `form` says is done. A network that
    does not begin with one convolution keeps its normalisation in front.
    """
    network = bundle.build()
    network.remove_auxiliary_heads()
    network = rewrites.fold_residual_scale(rewrites.fold_batch_norm(network))
    if form.swapped:
        network = rewrites.swap_average_pools(network)
    if form.merged:
        network = rewrites.merge_siblings(network)
    if not isinstance(getattr(network, network.endpoints[0]), ConvBlock):
        return Normalized(network, bundle).eval()
    preprocess = bundle.preprocess
    folded = rewrites.fold_normalization(network, preprocess)
    if form.blocks:
        folded = rewrites.space_to_depth(folded, (preprocess.height, preprocess.width))
    return folded.eval()


class Normalized(nn.Module):
    """A network behind its normalisation: `scale` and `shift` have in_chans values."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: Network, bundle: Bundle) -> None:
        super().__init__()
        preprocess = bundle.preprocess
        std = torch.tensor(preprocess.std, dtype=torch.float64)
        scale, shift = preprocess.value_range / 255.0 / std, -torch.tensor(preprocess.mean).double() / std
        self.network = network
        self.register_buffer("scale", scale.float()[:, None, None])
        self.register_buffer("shift", shift.float()[:, None, None])

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """N x C x H x W of any type, values 0..255, in; logits N x num_classes out."""
        logits: torch.Tensor = self.network(pixels.to(self.scale.dtype) * self.scale + self.shift)
        return logits


def graph_of(bundle: Bundle, form: Form = Form()) -> bytes:
    """The rewritten network as an ONNX graph that reads uint8 pixels and gives logits."""
    preprocess = bundle.preprocess
    shape = (preprocess.in_chans, preprocess.height, preprocess.width)
    return to_onnx(rewritten(bundle, form), shape, response_norm=form.response_norm)


def choose_form(
    bundle: Bundle, prepare: Callable[[bytes], Work], rounds: int | None = None
) -> tuple[Form, dict[str, float]]:
    """The form that an engine runs fastest on this machine, found one rewrite after another.

    Args:
        bundle: whose network.
        prepare: makes one run in the engine of an ONNX graph.
        rounds: measurements of each, in turns with the best form so far; None: by the time one takes.

    Returns the form, and for each rewrite tried the median ratio of the time with it to the time without.
    """
    form = Form()
    best = prepare(graph_of(bundle, form))
    rounds = rounds or _rounds(best)
    found: dict[str, float] = {}
    for name, change in _changes(bundle.build()).items():
        candidate = replace(form, **change)
        work = prepare(graph_of(bundle, candidate))
        times = interleaved({"without": best, "with": work}, rounds)
        found[name] = ratio(times["with"], times["without"])
        if found[name] <= GAIN:
            form, best = candidate, work
    return form, found


def _rounds(work: Work) -> int:
    seconds = min(interleaved({"one": work}, 3)["one"])
    # A round runs two works, each once unmeasured and once measured.
    return min(max(int(SECONDS / (4.0 * seconds)), LEAST_ROUNDS), MOST_ROUNDS)


def _changes(network: Network) -> dict[str, dict[str, Any]]:
    """The rewrites that would change this network: what they are called -> fields of `Form`."""
    modules = list(network.modules())
    changes: dict[str, dict[str, Any]] = {}
    if any(isinstance(module, LocalResponseNorm) for module in modules):
        changes["response norm as an operator"] = {"response_norm": "operator"}
    if any(isinstance(module, AvgPool) and module.stride == 1 for module in modules):
        changes["average pools swapped"] = {"swapped": True}
    first = getattr(network, network.endpoints[0])
    if isinstance(first, ConvBlock) and first.conv.stride == (2, 2):
        changes["first convolution over blocks"] = {"blocks": True}
    changes["siblings merged"] = {"merged": True}
    return changes
