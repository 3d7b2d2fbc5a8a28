"""The diagram of what ends networks: the layers behind the last feature map, and where the parameters are."""

from collections.abc import Sequence

from inception.nets.complexity import endpoint_shapes, weightless_copy
from inception.nets.network import Network
from inception.study.diagram.svg import SOFT, Sheet
from inception.study.diagram.tree import Leaf, top_tree
from inception.study.diagram.words import Language, say

COLUMN, BOX_WIDTH, BOX_HEIGHT, STEP, BAR, INSET = 290.0, 236.0, 66.0, 98.0, 8.0, 12.0


def draw_heads(networks: Sequence[Network], language: Language = "en") -> str:
    """The heads of several networks side by side, data flowing upwards, as an SVG file's text.

    In each layer a bar as long as its share of the most parameters that any of the layers has.
    """
    sheet = Sheet()
    heads = [_layers(network, language) for network in networks]
    most = max((layer.parameters for layers in heads for layer in layers), default=0) or 1
    height = STEP * max(map(len, heads))
    for number, (network, layers) in enumerate(zip(networks, heads, strict=True)):
        _draw_column(network, layers, number * COLUMN, most, sheet, language)
        _draw_total(network, layers, (number * COLUMN, -height - BOX_HEIGHT), sheet, language)
    return sheet.render(" · ".join(network.architecture for network in networks))


def _layers(network: Network, language: Language) -> list[Leaf]:
    """What runs behind the last stage, dropout left out."""
    twin = weightless_copy(network)
    shape = list(endpoint_shapes(network, network.image_size).values())[-1]
    tree = top_tree(twin, shape, language)
    return [part for part in tree.parts if isinstance(part, Leaf) and part.kind != "plain"]


def _draw_column(
    network: Network, layers: list[Leaf], left: float, most: int, sheet: Sheet, language: Language
) -> None:
    shape = list(endpoint_shapes(network, network.image_size).values())[-1]
    size = "×".join(map(str, (*shape[1:], shape[0])))
    y = -BOX_HEIGHT
    sheet.box(left, y, BOX_WIDTH, BOX_HEIGHT, (say("feature map", language), size), "input")
    for layer in layers:
        sheet.arrow([(left + BOX_WIDTH / 2, y), (left + BOX_WIDTH / 2, y - STEP + BOX_HEIGHT)])
        y -= STEP
        count = f"{_short(layer.parameters)} {say('parameters', language)}"
        second = count if layer.parameters else say("no parameters", language)
        words = layer.lines[0] if len(layer.lines) == 1 else f"{layer.lines[0]} → {layer.channels:,}"
        sheet.rectangle(left, y, BOX_WIDTH, BOX_HEIGHT, layer.kind, radius=7)
        sheet.text(left + BOX_WIDTH / 2, y + 22, words, bold=True)
        sheet.text(left + BOX_WIDTH / 2, y + 41, second)
        if layer.parameters:
            width = max((BOX_WIDTH - 2 * INSET) * layer.parameters / most, 2)
            sheet.rectangle(left + INSET, y + BOX_HEIGHT - BAR - 7, width, BAR, layer.kind, outline=False)


def _draw_total(
    network: Network, layers: list[Leaf], place: tuple[float, float], sheet: Sheet, language: Language
) -> None:
    own = sum(layer.parameters for layer in layers)
    whole = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if name.split(".")[0] not in network.aux_taps
    )
    middle, top = place[0] + BOX_WIDTH / 2, place[1]
    sheet.text(middle, top - 46, network.architecture, 18, bold=True)
    share = f"{100 * own / whole:.0f}%"
    words = (
        f"{_short(own)} of {_short(whole)} parameters ({share})"
        if language == "en"
        else f"{_short(whole)} 参数中占 {_short(own)}（{share}）"
    )
    sheet.text(middle, top - 22, words, 13, color=SOFT)


def _short(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1e5 else f"{number:,}"
