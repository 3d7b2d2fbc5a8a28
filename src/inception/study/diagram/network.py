"""The diagram of a whole network: cards in rows for a slide, or every layer as in the paper's Figure 3."""

import re
from dataclasses import dataclass

from inception.nets.complexity import endpoint_shapes, weightless_copy
from inception.nets.network import Network
from inception.study.diagram.layout import place, size_of
from inception.study.diagram.svg import SOFT, Kind, Sheet, text_width
from inception.study.diagram.tree import Chain, Fork, Leaf, Part, repeated, stage_tree, top_tree
from inception.study.diagram.words import Language, say

CARD_WIDTH, CARD_HEIGHT, GAP, ROW_GAP, CARDS_IN_ROW = 112.0, 92.0, 24.0, 62.0, 11
LEGEND: tuple[tuple[Kind, str], ...] = (
    ("reduction", "1×1 convolution"),
    ("convolution", "larger convolution"),
    ("pool", "pool"),
)
CARD_SIZE, CARD_MARGIN = 14.0, 6.0
HEAD_WIDTH, HEAD_LINE = 224.0, 19.0


@dataclass(frozen=True)
class Card:
    """A stage on a slide.

    Attributes:
        name: stage of the network; "" for the input and what stands on top.
        lines: texts, the first one bold.
        kind: its colour.
        shares: channels and colour of each branch.
    """

    name: str
    lines: tuple[str, ...]
    kind: Kind
    shares: tuple[tuple[int, Kind], ...] = ()


@dataclass(frozen=True)
class _Stages:
    """A network read for drawing: the tree of every stage, of what stands on top, and of the heads."""

    shapes: dict[str, tuple[int, ...]]
    stages: dict[str, Chain]
    top: Chain
    heads: dict[str, tuple[str, Chain]]


def _read(network: Network, language: Language) -> _Stages:
    twin = weightless_copy(network)
    shapes = endpoint_shapes(network, network.image_size)
    shape: tuple[int, ...] = (network.in_chans, network.image_size, network.image_size)
    stages = {}
    for name in twin.endpoints:
        module, count = repeated(twin.get_submodule(name))
        parts = stage_tree(module, shape, language).parts
        again = (Leaf((f"… {count}×",), "plain"),) if count > 1 else ()
        stages[name] = Chain((*parts, *again))
        shape = shapes[name]
    top = top_tree(twin, shape, language)
    heads = {
        tap: (head, stage_tree(twin.get_submodule(head), shapes[tap], language))
        for head, tap in twin.aux_taps.items()
    }
    return _Stages(shapes, stages, top, heads)


def draw_network(network: Network, language: Language = "en", full: bool = False) -> str:
    """A network as an SVG file's text: cards in rows, or with `full` every layer, from the bottom up."""
    read = _read(network, language)
    sheet = Sheet()
    side = network.image_size
    source = Leaf((say("input", language), f"{side}×{side}×{network.in_chans}"), "input")
    if full:
        _draw_full(read, source, sheet, language)
    else:
        _draw_slide(read, source, sheet, language)
    return sheet.render(network.architecture)


def _softmax(chain: Chain, language: Language) -> tuple[Part, ...]:
    return (*chain.parts, Leaf((say("softmax", language),), "plain"))


def _draw_full(read: _Stages, source: Leaf, sheet: Sheet, language: Language) -> None:
    """One long chain upwards; the heads rise to the right of the stage they read."""
    parts: list[Part] = [source]
    for chain in read.stages.values():
        parts += chain.parts
    trunk = Chain((*parts, *_softmax(read.top, language)))
    right = size_of(trunk)[0] / 2
    place(trunk, 0, 0, sheet)
    for tap, (_, head) in read.heads.items():
        below = Chain(tuple(parts[: _place_of(read, tap)]))
        level = -size_of(below)[1]
        tower = Chain(_softmax(head, language))
        center = right + 40 + size_of(tower)[0] / 2
        # Out of the join's side, so that no line crosses the trunk.
        start = level + 16
        width = size_of(parts[_place_of(read, tap) - 1])[0] / 2
        entry = place(tower, center, level - 34, sheet).entries[0]
        sheet.arrow([(width, start), (center, start), entry])
        sheet.text(center, level + 36, say("auxiliary classifier", language), 13, color=SOFT)


def _place_of(read: _Stages, tap: str) -> int:
    """How many parts of the trunk there are up to the end of stage `tap`, the input included."""
    count = 1
    for name, chain in read.stages.items():
        count += len(chain.parts)
        if name == tap:
            break
    return count


def cards(read: _Stages, source: Leaf, language: Language) -> list[Card]:
    """What a slide shows, from input to softmax."""
    found = [Card("", source.lines, "input")]
    for name, chain in read.stages.items():
        shape = read.shapes[name]
        size = "×".join(map(str, (*shape[1:], shape[0])))
        fork = next((part for part in chain.parts if isinstance(part, Fork)), None)
        last = chain.parts[-1] if chain.parts else Leaf((name,), "plain")
        if fork is not None:
            shares = tuple(_share(branch) for branch in _widest(fork).branches if branch.parts)
            times = f" {last.lines[0][2:]}" if isinstance(last, Leaf) and last.lines[0][0] == "…" else ""
            found.append(Card(name, (_title(name) + times, size), "join", shares))
        elif isinstance(last, Leaf):
            found.append(Card(name, (*wrapped(last.lines[0]), size), last.kind))
    top = [part for part in _softmax(read.top, language) if isinstance(part, Leaf)]
    return found + [Card("", wrapped(part.lines[0]), part.kind) for part in top]


def _widest(fork: Fork) -> Fork:
    """The fork itself, or the one inside a residual block's only branch."""
    inside = [part for branch in fork.branches for part in branch.parts if isinstance(part, Fork)]
    shortcut = any(not branch.parts for branch in fork.branches)
    return inside[0] if shortcut and inside else fork


def _share(branch: Chain) -> tuple[int, Kind]:
    last = branch.parts[-1]
    kinds = [part.kind for part in branch.parts if isinstance(part, Leaf)]
    kind: Kind = "pool" if "pool" in kinds else (kinds[-1] if kinds else "convolution")
    return (last.channels if isinstance(last, Leaf) else last.join.channels), kind


def _title(name: str) -> str:
    return re.sub(r"^inception(?=\d)", "Inception ", name)


def wrapped(text: str) -> tuple[str, ...]:
    """A text in lines that fit a card."""
    lines: list[str] = []
    for word in text.split(" "):
        # A window such as 3×3/2 has a line for itself.
        if (
            lines
            and "×" not in lines[-1]
            and text_width(f"{lines[-1]} {word}", CARD_SIZE) <= CARD_WIDTH - 2 * CARD_MARGIN
        ):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return tuple(lines)


def _draw_slide(read: _Stages, source: Leaf, sheet: Sheet, language: Language) -> None:
    found = cards(read, source, language)
    rows = -(-len(found) // CARDS_IN_ROW)
    in_row = -(-len(found) // rows)
    top = 0.0
    for start in range(0, len(found), in_row):
        row = found[start : start + in_row]
        lowest = top + CARD_HEIGHT
        for number, card in enumerate(row):
            left = number * (CARD_WIDTH + GAP)
            _draw_card(card, left, top, sheet)
            if number:
                sheet.arrow([(left - GAP, top + CARD_HEIGHT / 2), (left, top + CARD_HEIGHT / 2)])
            if card.name in read.heads:
                lowest = max(lowest, _draw_head(read.heads[card.name][1], left, top, sheet, language))
        if start + in_row < len(found):
            right, level = len(row) * (CARD_WIDTH + GAP) - GAP, lowest + ROW_GAP / 2
            sheet.arrow(
                [
                    (right, top + CARD_HEIGHT / 2),
                    (right + GAP / 2, top + CARD_HEIGHT / 2),
                    (right + GAP / 2, level),
                    (CARD_WIDTH / 2, level),
                    (CARD_WIDTH / 2, lowest + ROW_GAP),
                ]
            )
        top = lowest + ROW_GAP
    if any(card.shares for card in found):
        _draw_legend(top - ROW_GAP / 2, sheet, language)


def _draw_legend(top: float, sheet: Sheet, language: Language) -> None:
    """What the bars in the modules mean, in one line."""
    x = 0.0
    for kind, words in LEGEND:
        text = say(words, language)
        sheet.rectangle(x, top, 13, 13, kind, outline=False)
        sheet.text(x + 19, top + 11, text, 13, color=SOFT, anchor="start")
        x += 19 + text_width(text, 13) + 24
    sheet.text(x, top + 11, say("(by share of channels)", language), 13, color=SOFT, anchor="start")


def _draw_card(card: Card, left: float, top: float, sheet: Sheet) -> None:
    # The first line is bold, and bold letters are wider.
    widest = max(text_width(line, 1.08) for line in card.lines)
    size = min(CARD_SIZE, (CARD_WIDTH - CARD_MARGIN) / widest)
    if not card.shares:
        sheet.box(left, top, CARD_WIDTH, CARD_HEIGHT, card.lines, card.kind, size)
        return
    sheet.rectangle(left, top, CARD_WIDTH, CARD_HEIGHT, card.kind, radius=7)
    sheet.text(left + CARD_WIDTH / 2, top + 24, card.lines[0], size, bold=True)
    sheet.text(left + CARD_WIDTH / 2, top + 43, card.lines[1], min(size, 13))
    whole, x = sum(count for count, _ in card.shares), left + 10
    for count, kind in card.shares:
        width = (CARD_WIDTH - 20) * count / whole
        sheet.rectangle(x, top + 58, max(width - 2, 2), 22, kind, outline=False)
        x += width


def _draw_head(head: Chain, left: float, top: float, sheet: Sheet, language: Language) -> float:
    """An auxiliary head below its card; returns the lowest point."""
    lines = [" ".join(part.lines) for part in _softmax(head, language) if isinstance(part, Leaf)]
    height = HEAD_LINE * (len(lines) + 1) + 18
    upper = top + CARD_HEIGHT + 34
    middle = left + CARD_WIDTH / 2
    sheet.arrow([(middle, top + CARD_HEIGHT), (middle, upper)])
    sheet.rectangle(middle - HEAD_WIDTH / 2, upper, HEAD_WIDTH, height, "dense", radius=7)
    for number, line in enumerate([say("auxiliary classifier", language), *lines]):
        sheet.text(middle, upper + 22 + HEAD_LINE * number, line, 13, bold=number == 0)
    return upper + height
