"""A sheet to draw boxes, arrows and texts on, given out as SVG. Lengths are pixels, y grows downwards."""

from collections.abc import Sequence
from html import escape
from typing import Literal

Kind = Literal["input", "reduction", "convolution", "pool", "join", "dense", "plain"]
Point = tuple[float, float]

FONT = "Helvetica, Arial, 'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif"
INK, SOFT, PAPER = "#1c2024", "#5a636c", "#ffffff"
FILLS: dict[Kind, tuple[str, str]] = {
    "input": ("#f1f3f5", "#868e96"),
    "reduction": ("#fdf0c4", "#c9930a"),
    "convolution": ("#d6e8f7", "#0072b2"),
    "pool": ("#fbdcd0", "#d55e00"),
    "join": ("#d7f0e5", "#009e73"),
    "dense": ("#eeddec", "#b0578d"),
    "plain": ("#ffffff", "#868e96"),
}
"""Fill and outline: tints and tones of Okabe and Ito's colours (2008)."""

_LINE_HEIGHT = 1.3


def text_width(text: str, size: float) -> float:
    """About how wide a text is; East Asian letters are as wide as high."""
    return size * sum(0.56 if ord(letter) < 0x2E80 else 1.0 for letter in text)


class Sheet:
    """Collects shapes and remembers how far they reach."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._left = self._top = float("inf")
        self._right = self._bottom = float("-inf")

    def _reach(self, *points: Point) -> None:
        for x, y in points:
            self._left, self._right = min(self._left, x), max(self._right, x)
            self._top, self._bottom = min(self._top, y), max(self._bottom, y)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        lines: Sequence[str],
        kind: Kind,
        size: float = 14,
    ) -> None:
        """A rounded box with its left upper corner at (x, y); the first line is bold."""
        self.rectangle(x, y, width, height, kind, radius=7)
        step = _LINE_HEIGHT * size
        base = y + height / 2 - step * (len(lines) - 1) / 2 + 0.35 * size
        for number, line in enumerate(lines):
            self.text(x + width / 2, base + step * number, line, size, bold=number == 0 and len(lines) > 1)

    def rectangle(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        kind: Kind,
        radius: float = 0,
        outline: bool = True,
    ) -> None:
        """A filled rectangle."""
        fill, stroke = FILLS[kind]
        edge = f'stroke="{stroke}" stroke-width="1.5"' if outline else 'stroke="none"'
        paint = fill if outline else stroke
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}" '
            f'fill="{paint}" {edge}/>'
        )
        self._reach((x, y), (x + width, y + height))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 14,
        *,
        bold: bool = False,
        color: str = INK,
        anchor: Literal["start", "middle", "end"] = "middle",
    ) -> None:
        """One line of text whose baseline passes through (x, y)."""
        weight = ' font-weight="bold"' if bold else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" '
            f'fill="{color}"{weight}>{escape(text)}</text>'
        )
        width = text_width(text, size * (1.08 if bold else 1.0))
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        self._reach((left, y - size), (left + width, y + 0.3 * size))

    def arrow(self, points: Sequence[Point], head: bool = True) -> None:
        """A line through `points` with an arrow head at its end."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        marker = ' marker-end="url(#head)"' if head else ""
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{SOFT}" stroke-width="1.5" '
            f'stroke-linejoin="round"{marker}/>'
        )
        self._reach(*points)

    def render(self, title: str, margin: float = 20) -> str:
        """The sheet as a whole SVG file, white behind, cut to what was drawn."""
        left, top = self._left - margin, self._top - margin
        width, height = self._right - self._left + 2 * margin, self._bottom - self._top + 2 * margin
        body = "\n".join(self._parts)
        view = f"{left:.0f} {top:.0f} {width:.0f} {height:.0f}"
        return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}" \
width="{width:.0f}" height="{height:.0f}" font-family="{FONT}" role="img">
<title>{escape(title)}</title>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0,0.5 L8,4 L0,7.5 z" fill="{SOFT}"/></marker></defs>
<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" fill="{PAPER}"/>
{body}
</svg>
"""
