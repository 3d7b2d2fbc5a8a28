"""The diagram of one stage, as in the paper's Figure 2."""

from inception.nets.complexity import endpoint_shapes, weightless_copy
from inception.nets.endpoints import resolve_endpoint
from inception.nets.network import Network
from inception.study.diagram.layout import place
from inception.study.diagram.svg import SOFT, Sheet
from inception.study.diagram.tree import Chain, Leaf, repeated, stage_tree
from inception.study.diagram.words import Language, say


def draw_block(network: Network, stage: str, language: Language = "en") -> str:
    """The stage called `stage` (other tools' names are understood) as an SVG file's text.

    Raises UsageError, with near names, for an unknown stage.
    """
    name = resolve_endpoint(stage, network.endpoints, network.aliases)
    twin = weightless_copy(network)
    shapes = endpoint_shapes(network, network.image_size)
    before = twin.endpoints.index(name) - 1
    side = network.image_size
    shape = shapes[twin.endpoints[before]] if before >= 0 else (network.in_chans, side, side)
    module, count = repeated(twin.get_submodule(name))
    tree = stage_tree(module, shape, language)
    source = Leaf((say("previous layer", language), _dimensions(shape)), "input")
    sheet = Sheet()
    top = place(Chain((source, *tree.parts)), 0, 0, sheet).exit
    title = f"{network.architecture} · {name}" + (f" · {count}×" if count > 1 else "")
    sheet.arrow([top, (top[0], top[1] - 30)])
    sheet.text(top[0], top[1] - 40, f"{title} · {_dimensions(shapes[name])}", 15, color=SOFT)
    return sheet.render(title)


def _dimensions(shape: tuple[int, ...]) -> str:
    """As height x width x channels."""
    return "×".join(map(str, (*shape[1:], shape[0])))
