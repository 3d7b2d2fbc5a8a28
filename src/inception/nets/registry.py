"""From a name to a network."""

import difflib
import fnmatch
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from inception.errors import UsageError
from inception.nets import googlenet
from inception.nets.network import FeatureNetwork, Network

BUILDERS: dict[str, Callable[..., Network]] = {
    "googlenet": googlenet.googlenet,
    "googlenet_5h": googlenet.googlenet_5h,
    "googlenet_bn": googlenet.googlenet_bn,
    "googlenet_tv": googlenet.googlenet_tv,
}
ALIASES = {"inception_v1": "googlenet", "inception5h": "googlenet_5h"}


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` accepts, sorted; `pattern` is a shell pattern such as `googlenet*`."""
    return sorted(fnmatch.filter(BUILDERS, pattern))


def canonical_name(name: str) -> str:
    """The name under which a network is registered; UsageError, with near names, when there is none."""
    name = ALIASES.get(name, name)
    if name not in BUILDERS:
        near = difflib.get_close_matches(name, [*BUILDERS, *ALIASES], n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"the models are {', '.join(list_models())}"
        raise UsageError(f"no model is called '{name}': {hint}")
    return name


def build_network(name: str, **arguments: Any) -> Network:
    """Create the network `name` with fresh weights, in training mode.

    Args:
        name: one of `list_models()`, or an alias such as `inception_v1`.
        **arguments: `num_classes`, `in_chans`, `aux_logits` (or `aux`), `dropout`, `aux_dropout`, `width`,
            `stem` ('large' | 'small'), `module` ('reduced' | 'naive'), `head` ('average' |
            'fully_connected'), `kernel5` ('5x5' | '3x3' | '3x3+3x3'), `global_pool` ('avg' | ''),
            `image_size` (only a fully connected head needs it).

    Raises UsageError for an unknown name or argument.
    """
    name = canonical_name(name)
    if "aux" in arguments:
        arguments["aux_logits"] = arguments.pop("aux")
    try:
        network = BUILDERS[name](**arguments)
    except TypeError as error:
        known = inspect.signature(googlenet._build).parameters.values()
        options = ", ".join(p.name for p in known if p.kind is p.KEYWORD_ONLY)
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
