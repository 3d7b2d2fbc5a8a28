"""Places a tree of boxes on a sheet: data flows upwards, branches stand side by side."""

from dataclasses import dataclass

from inception.study.diagram.svg import Point, Sheet, text_width
from inception.study.diagram.tree import Chain, Fork, Leaf, Part

LINE, PADDING, RISE, ASIDE, SHORTCUT = 18.2, 20.0, 26.0, 22.0, 34.0
LEAST_WIDTH = 118.0
SIZE = 14.0


@dataclass(frozen=True)
class Placed:
    """Where lines may enter a drawn part from below, and where one leaves it above."""

    entries: tuple[Point, ...]
    exit: Point


def leaf_size(leaf: Leaf) -> tuple[float, float]:
    """Width and height of a box."""
    widest = max(text_width(line, SIZE * 1.08) for line in leaf.lines)
    return max(widest + PADDING, LEAST_WIDTH), LINE * len(leaf.lines) + 12


def size_of(part: Part | Chain) -> tuple[float, float]:
    """Width and height of a drawn part."""
    if isinstance(part, Leaf):
        return leaf_size(part)
    if isinstance(part, Fork):
        sizes = [size_of(branch) for branch in part.branches]
        width = sum(width for width, _ in sizes) + ASIDE * (len(sizes) - 1)
        join = leaf_size(part.join)
        return max(width, join[0]), max(height for _, height in sizes) + RISE + join[1]
    sizes = [size_of(item) for item in part.parts]
    if not sizes:
        return SHORTCUT, 0.0
    return max(width for width, _ in sizes), sum(height for _, height in sizes) + _rises(part)


def _rises(chain: Chain) -> float:
    """Room for the lines between the parts of a chain; a fork wants more below it."""
    return sum(_rise_below(part) for part in chain.parts[1:])


def _rise_below(part: Part) -> float:
    return RISE * (1.5 if isinstance(part, Fork) else 1.0)


def place(part: Part | Chain, center: float, bottom: float, sheet: Sheet) -> Placed:
    """Draw a part upwards from `bottom`, around the vertical line at `center`."""
    if isinstance(part, Leaf):
        return _place_leaf(part, center, bottom, leaf_size(part)[0], sheet)
    if isinstance(part, Fork):
        return _place_fork(part, center, bottom, sheet)
    return _place_chain(part, center, bottom, sheet)


def _place_leaf(leaf: Leaf, center: float, bottom: float, width: float, sheet: Sheet) -> Placed:
    height = leaf_size(leaf)[1]
    sheet.box(center - width / 2, bottom - height, width, height, leaf.lines, leaf.kind, SIZE)
    return Placed(((center, bottom),), (center, bottom - height))


def _place_chain(chain: Chain, center: float, bottom: float, sheet: Sheet) -> Placed:
    entries: tuple[Point, ...] = ()
    last: Placed | None = None
    for part in chain.parts:
        start = bottom if last is None else last.exit[1] - _rise_below(part)
        placed = place(part, center, start, sheet)
        if last is None:
            entries = placed.entries
        else:
            connect(last.exit, placed.entries, sheet)
        last = placed
    return Placed(entries or ((center, bottom),), last.exit if last else (center, bottom))


def _place_fork(fork: Fork, center: float, bottom: float, sheet: Sheet) -> Placed:
    sizes = [size_of(branch) for branch in fork.branches]
    width = size_of(fork)[0]
    spread = sum(size for size, _ in sizes) + ASIDE * (len(sizes) - 1)
    left, tallest = center - spread / 2, max(height for _, height in sizes)
    join_bottom = bottom - tallest - RISE
    entries: list[Point] = []
    for branch, (branch_width, height) in zip(fork.branches, sizes, strict=True):
        middle = left + branch_width / 2
        if branch.parts:
            # Branches hang from the join, so that the last layers of all stand in one line.
            placed = place(branch, middle, bottom - tallest + height, sheet)
            entries += placed.entries
            sheet.arrow([placed.exit, (middle, join_bottom)])
        else:
            entries.append((middle, join_bottom))
        left += branch_width + ASIDE
    joined = _place_leaf(fork.join, center, join_bottom, width, sheet)
    return Placed(tuple(entries), joined.exit)


def connect(start: Point, entries: tuple[Point, ...], sheet: Sheet) -> None:
    """Lines from one point up to each entry: straight, or along one shared level."""
    lowest = max(y for _, y in entries)
    level = start[1] - min(RISE * 0.55, (start[1] - lowest) / 2)
    for x, y in entries:
        if abs(x - start[0]) < 0.5:
            sheet.arrow([start, (x, y)])
        else:
            sheet.arrow([start, (start[0], level), (x, level), (x, y)])
