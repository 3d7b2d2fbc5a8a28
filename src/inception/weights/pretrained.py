"""Networks with weights already in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from inception.errors import UsageError
from inception.nets.network import FeatureNetwork
from inception.nets.registry import build_model, canonical_name
from inception.weights.bundle import load_bundle
from inception.weights.catalogue import CATALOGUE
from inception.weights.fetch import published_bundle


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    pretrained: str | Path | bool | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    **arguments: Any,
) -> nn.Module:
    """A network by name, with fresh weights or with a bundle's.

    Args:
        name: one of `list_models()` or an alias (`inception_v1`).
        num_classes: outputs; default the network's own (1000, or 1008 for `googlenet_5h`), or with
            `pretrained` the bundle's. Another number than the bundle's gives fresh classifiers.
            0 returns pooled features.
        in_chans: input channels.
        pretrained: path of a bundle made by `train` or `import` that holds this network, or the name of
            published weights (`inception weights list`) that `inception weights get` has fetched before.
        features_only: return the feature pyramid (a list of maps) instead of logits.
        out_indices: which of its levels, shallow to deep.
        **arguments: see `inception.nets.registry.build_network`.

    Returns a module in training mode. Raises UsageError for unknown names, arguments or levels.
    """
    if pretrained is None or pretrained is False:
        classes = {} if num_classes is None else {"num_classes": num_classes}
        return build_model(
            name,
            features_only=features_only,
            out_indices=out_indices,
            in_chans=in_chans,
            **classes,
            **arguments,
        )
    if not isinstance(pretrained, str | Path):
        raise UsageError(
            "pretrained takes the path of a bundle (make one with `inception import`) or the name of "
            "published weights (see `inception weights list`)"
        )
    if str(pretrained) in CATALOGUE and not Path(pretrained).exists():
        bundle = published_bundle(str(pretrained), offline=True)
    else:
        bundle = load_bundle(pretrained)
    if bundle.network != canonical_name(name):
        raise UsageError(f"{pretrained} holds a {bundle.network}, not a {name}")
    if arguments or in_chans != bundle.arguments.get("in_chans", 3):
        raise UsageError("a pretrained network has its bundle's arguments; only num_classes can be changed")
    network = bundle.build().train()
    if num_classes is not None and num_classes != network.num_classes:
        network.reset_classifier(num_classes)
    return FeatureNetwork(network, out_indices) if features_only else network
