"""Which network's weights a file looks like, where it does not fit the one that was asked for."""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from inception.nets.registry import ARCHITECTURES, build_network, list_models
from inception.weights.formats.foreign import Foreign
from inception.weights.formats.prefixes import without_prefixes
from inception.weights.preprocessing import PREPROCESSING
from inception.weights.sources.choose import find, sources_of
from inception.weights.sources.source import TORCH_FORMATS, Source, split_name

_ENOUGH = 0.6
"""Share of a network's tensors, without its heads, that a file must have in their shapes to look like it."""
# Names by which other networks' weights are known, as torchvision, timm and others write them.
_OTHERS = {
    r"(?:^|\.)layer[1-4]\.\d+\.(?:conv|bn)\d": "a ResNet",
    r"denseblock\d": "a DenseNet",
    r"last_bn\.": "facenet-pytorch's InceptionResnetV1",
    r"patch_embed|attn\.qkv|self_attention": "a vision transformer",
    r"stages\.\d+\.blocks|layer_scale|stages\.\d+\.\d+\.gamma": "a ConvNeXt",
    r"_blocks\.\d+\._|blocks\.\d+\.\d+\.conv_pw|features\.\d+\.\d+\.block\.": "an EfficientNet",
    r"features\.\d+\.conv\.\d": "a MobileNet",
    r"stage[2-4]\.\d+\.branch": "a ShuffleNet",
    r"features\.\d+\.(?:squeeze|expand)": "a SqueezeNet",
    r"(?:^|\.)model\.\d+\.(?:conv|cv\d|bn)|^\d+\.cv\d": "a YOLO",
    r"conv[2-5]_block\d": "Keras's ResNet or DenseNet",
    r"block_\d+_(?:expand|depthwise|project)|block\d[a-z]_": "Keras's MobileNet or EfficientNet",
}


def likely_network(foreign: Foreign, asked: str) -> str:
    """A clause that names the network whose weights these seem to be; empty where that is the asked one."""
    best, share, tool = "", 0.0, ""
    for name in list_models():
        with torch.device("meta"):
            wanted = build_network(name, aux_logits=bool(ARCHITECTURES[name].aux_heads)).state_dict()
        body = {key: value for key, value in wanted.items() if not _may_differ(key)}
        for source in sources_of(name, PREPROCESSING[name]):
            if source.by_order or foreign.format not in source.formats:
                continue
            fits = _share(source, body, foreign)
            if fits > share:
                best, share, tool = name, fits, source.tool
    if best and share >= _ENOUGH:
        return "" if best == asked else f"; these look like {_owner(tool)} {best}: --as {best}"
    return _other(foreign.tensors)


def _owner(tool: str) -> str:
    return "our" if tool == "inception" else "TF-slim's" if tool == "slim" else f"{tool}'s"


def _may_differ(name: str) -> bool:
    """Tensors that a file may lack, or have otherwise, and still be of this network."""
    return name.startswith(("fc.", "aux", "head.")) or name.endswith("num_batches_tracked")


def _share(source: Source, body: Mapping[str, Tensor], foreign: Foreign) -> float:
    """Share of the network's tensors that the file has, in their shapes."""
    tensors = dict(foreign.tensors)
    if foreign.format in TORCH_FORMATS:
        roots = roots_of(source, body)
        tensors, _ = without_prefixes(tensors, lambda first: first not in roots)
    found = {name: find(source, source.layers, name, tensors) for name in body}
    hits = sum(
        theirs is not None and _sides(tensors[theirs]) == _sides(body[name]) for name, theirs in found.items()
    )
    return hits / len(body)


def _sides(value: Tensor) -> list[int]:
    """Sides of a tensor whatever the layout."""
    return sorted(side for side in value.shape if side != 1)


def roots_of(source: Source, names: Collection[str]) -> set[str]:
    """First parts of the names that a source has for a network's tensors."""
    layers = {split_name(name)[0] for name in names}
    theirs = [*source.layers.values(), *(source.layers.get(layer, layer) for layer in layers)]
    return {layer.partition(".")[0] for layer in theirs}


def _other(tensors: Mapping[str, Tensor]) -> str:
    for pattern, name in _OTHERS.items():
        if sum(re.search(pattern, tensor) is not None for tensor in tensors) >= min(4, len(tensors)):
            return f"; these look like {name}, which is not among the networks here (`inception models`)"
    return ""
