"""All key maps, and which of them fits a file."""

import difflib
from collections.abc import Mapping, Sequence

from torch import Tensor

from inception.data.preprocess import Preprocess
from inception.errors import UsageError
from inception.weights.formats.foreign import Foreign
from inception.weights.sources import (
    classics,
    googlenet,
    inception_resnet,
    inception_v2,
    inception_v3,
    inception_v4,
)
from inception.weights.sources.source import (
    TORCH_BLOCKS,
    TORCH_FORMATS,
    Source,
    onnx_source,
    split_name,
)

SOURCES: Mapping[str, tuple[Source, ...]] = {
    **googlenet.SOURCES,
    **inception_v2.SOURCES,
    **inception_v3.SOURCES,
    **inception_v4.SOURCES,
    **inception_resnet.SOURCES,
    **classics.SOURCES,
}
"""Network -> the forms in which its weights are known."""


def sources_of(network: str, preprocess: Preprocess) -> tuple[Source, ...]:
    """The known forms of a network's weights, and our own names with `preprocess` (a bundle's weights)."""
    known = SOURCES.get(network) or (onnx_source(preprocess=preprocess, imagenet_order=False),)
    own = Source("inception", TORCH_FORMATS, TORCH_BLOCKS, preprocess, imagenet_order=False, background=False)
    return (*known, own)


def computed_layers(names: Sequence[str]) -> list[str]:
    """Our layers in the order of the computation, of our tensors' names; auxiliary heads are not computed."""
    layers = dict.fromkeys(split_name(name)[0] for name in names)
    return [layer for layer in layers if not layer.startswith("aux")]


def layers_by_order(names: Sequence[str], foreign: Foreign) -> dict[str, str]:
    """Our layers -> the file's, both in the order of the computation."""
    return dict(zip(computed_layers(names), foreign.layers, strict=False))


def find(source: Source, layers: Mapping[str, str], name: str, tensors: Mapping[str, Tensor]) -> str | None:
    """The file's name of our tensor `name`; None when the file does not have it."""
    layer, role = split_name(name)
    theirs = layers.get(layer, layer)
    if role.startswith("bn."):
        theirs = layers.get(f"{layer}.bn", theirs)
    for pattern in source.roles.get(role, ()):
        candidate = pattern.format(theirs)
        if candidate in tensors:
            return candidate
    return None


def choose_source(
    network: str, sources: Sequence[Source], foreign: Foreign, names: Sequence[str], tool: str | None = None
) -> Source:
    """The source under whose names the file has most of our tensors; by order only where no name fits.

    Raises UsageError when the network's weights are not known in this format, or not of this tool.
    """
    fitting = [source for source in sources if foreign.format in source.formats]
    if tool is not None:
        known = sorted({source.tool for source in fitting})
        fitting = [source for source in fitting if source.tool == tool]
        if not fitting:
            near = difflib.get_close_matches(tool, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known) or 'none'}"
            raise UsageError(f"no weights of {network} in such a file are known from '{tool}': {hint}")
    if not fitting:
        known = sorted({form for source in sources for form in source.formats})
        raise UsageError(
            f"{network}'s weights are not known as a {foreign.format} file, only as {', '.join(known)}"
        )

    def hits(source: Source) -> int:
        layers = layers_by_order(names, foreign) if source.by_order else source.layers
        return sum(find(source, layers, name, foreign.tensors) is not None for name in names)

    by_name = [source for source in fitting if not source.by_order]
    if by_name and max(map(hits, by_name)) > 0:
        return max(by_name, key=hits)
    return max(fitting, key=hits)
