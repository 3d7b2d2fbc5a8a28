"""From a name to a network."""

import difflib
import fnmatch
from collections.abc import Sequence
from typing import Any

from torch import nn

from inception.errors import UsageError
from inception.nets import (
    classics,
    googlenet,
    inception_resnet,
    inception_small,
    inception_v2,
    inception_v3,
    inception_v4,
)
from inception.nets.architecture import Architecture, build
from inception.nets.network import FeatureNetwork, Network

ARCHITECTURES: dict[str, Architecture] = {
    **googlenet.ARCHITECTURES,
    **inception_v2.ARCHITECTURES,
    **inception_v3.ARCHITECTURES,
    **inception_v4.ARCHITECTURES,
    **inception_resnet.ARCHITECTURES,
    **inception_small.ARCHITECTURES,
    **classics.ARCHITECTURES,
}
ALIASES = {
    "inception_v1": "googlenet",
    "inception5h": "googlenet_5h",
    "bninception": "inception_v2_caffe",
    "bvlc_alexnet": "alexnet",
}


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` accepts, sorted; `pattern` is a shell pattern such as `googlenet*`."""
    return sorted(fnmatch.filter(ARCHITECTURES, pattern))


def canonical_name(name: str) -> str:
    """The name under which a network is registered; UsageError, with near names, when there is none."""
    name = ALIASES.get(name, name)
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, [*ARCHITECTURES, *ALIASES], n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"the models are {', '.join(list_models())}"
        raise UsageError(f"no model is called '{name}': {hint}")
    return name


def build_network(name: str, **arguments: Any) -> Network:
    """Create the network `name` with fresh weights, in training mode.

    Args:
        name: one of `list_models()`, or an alias such as `inception_v1`.
        **arguments: `num_classes`, `in_chans`, `aux_logits` (or `aux`), `dropout`, `aux_dropout`, `width`,
            `stem` ('large' | 'small'), `padding` ('ceil' | 'floor' | 'same'), `count_include_pad`, `bn_eps`,
            `batch_norm_scale` (whether batch normalisation learns a factor), `global_pool` ('avg' | ''); for
            GoogLeNet's variants `module` ('reduced' | 'naive'), `head` ('average' | 'fully_connected'),
            `kernel5` ('5x5' | '3x3' | '3x3+3x3'), `image_size` (only a fully connected head needs it); for
            Inception-v2 `separable`.

    Raises UsageError for an unknown name or argument, or a value that does not fit.
    """
    name = canonical_name(name)
    if "aux" in arguments:
        arguments["aux_logits"] = arguments.pop("aux")
    architecture = ARCHITECTURES[name]
    try:
        network = build(architecture, **arguments)
    except TypeError as error:
        options = ", ".join(architecture.options)
        raise UsageError(f"{name} does not take these arguments ({error}); it takes {options}") from error
    except ValueError as error:
        raise UsageError(f"{name} cannot be built: {error}") from error
    network.architecture = name
    network.arguments = {key: value for key, value in arguments.items() if key != "num_classes"}
    return network


def build_model(
    name: str, *, features_only: bool = False, out_indices: Sequence[int] | None = None, **arguments: Any
) -> nn.Module:
    """`build_network`, or with `features_only` its feature pyramid at `out_indices` (timm's contract)."""
    network = build_network(name, **arguments)
    return FeatureNetwork(network, out_indices) if features_only else network
