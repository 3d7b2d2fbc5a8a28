"""The diagram of what ends networks: the layers behind the last feature map, and where the parameters are."""

from collections.abc import Sequence

from inception.nets.complexity import LayerCost, endpoint_shapes, profile
from inception.nets.network import Network
from inception.study.diagram.svg import INK, SOFT, Kind, Sheet
from inception.study.diagram.words import Language, say

COLUMN, BOX_WIDTH, BOX_HEIGHT, STEP, BAR = 300.0, 236.0, 52.0, 92.0, 11.0


def draw_heads(networks: Sequence[Network], language: Language = "en") -> str:
    """The heads of several networks side by side, data flowing upwards, as an SVG file's text.

    Under each layer a bar as long as its share of the most parameters that any of the layers has.
    """
    sheet = Sheet()
    heads = [_layers(network) for network in networks]
    most = max((layer.parameters for layers in heads for layer in layers), default=1) or 1
    height = STEP * max(map(len, heads))
    for number, (network, layers) in enumerate(zip(networks, heads, strict=True)):
        _draw_column(network, layers, number * COLUMN, most, sheet, language)
        _draw_total(network, layers, number * COLUMN, height, sheet, language)
    return sheet.render(" · ".join(network.architecture for network in networks))


def _layers(network: Network) -> list[LayerCost]:
    """What runs behind the last stage, without what does nothing to read."""
    costs = profile(network, network.image_size)
    behind = [cost for cost in costs if cost.stage not in network.endpoints and not cost.auxiliary]
    return [cost for cost in behind if cost.kind in ("convolution", "linear", "avg pool")]


def _draw_column(
    network: Network, layers: list[LayerCost], left: float, most: int, sheet: Sheet, language: Language
) -> None:
    shape = list(endpoint_shapes(network, network.image_size).values())[-1]
    size = "×".join(map(str, (*shape[1:], shape[0])))
    sheet.box(left, -BOX_HEIGHT, BOX_WIDTH, BOX_HEIGHT, (say("feature map", language), size), "input")
    y = -BOX_HEIGHT
    for layer in layers:
        lines, kind = _words(layer, language)
        sheet.arrow([(left + BOX_WIDTH / 2, y), (left + BOX_WIDTH / 2, y - STEP + BOX_HEIGHT)])
        y -= STEP
        sheet.box(left, y, BOX_WIDTH, BOX_HEIGHT, lines, kind)
        if layer.parameters:
            width = max(BOX_WIDTH * layer.parameters / most, 2)
            sheet.rectangle(left, y + BOX_HEIGHT + 3, width, BAR, kind, outline=False)


def _draw_total(
    network: Network, layers: list[LayerCost], left: float, height: float, sheet: Sheet, language: Language
) -> None:
    own = sum(layer.parameters for layer in layers)
    whole = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if name.split(".")[0] not in network.aux_taps
    )
    middle = left + BOX_WIDTH / 2
    sheet.text(middle, -height - BOX_HEIGHT - 52, network.architecture, 18, bold=True, color=INK)
    share = f"{100 * own / whole:.0f}%"
    words = (
        f"{_count(own)} of {_count(whole)} parameters ({share})"
        if language == "en"
        else f"{_count(whole)} 参数中的 {_count(own)}（{share}）"
    )
    sheet.text(middle, -height - BOX_HEIGHT - 28, words, 13, color=SOFT)


def _words(layer: LayerCost, language: Language) -> tuple[tuple[str, ...], Kind]:
    if layer.kind == "avg pool":
        return (say("global average pool", language), say("no parameters", language)), "pool"
    if layer.kind == "linear":
        name, kind = f"{say('fully connected', language)} {layer.output_shape[0]:,}", "dense"
    else:
        height, width = layer.kernel or (1, 1)
        kind = "reduction" if (height, width) == (1, 1) else "convolution"
        name = f"{height}×{width} {say('convolution', language)} {layer.output_shape[0]:,}"
    return (name, f"{_count(layer.parameters)} {say('parameters', language)}"), kind  # type: ignore[return-value]


def _count(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1e5 else f"{number:,}"
