"""Small pieces of HTML that the sections of the report share; everything given is escaped."""

from collections.abc import Iterable, Sequence
from html import escape


def both(english: str, chinese: str) -> str:
    """A text in both languages; the page shows one of them."""
    return f'<span lang="en">{escape(english)}</span><span lang="zh-CN">{escape(chinese)}</span>'


def paragraph(english: str, chinese: str) -> str:
    """A remark in both languages."""
    return f'<p class="soft">{both(english, chinese)}</p>'


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in per cent; a dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.{digits}f}%"


def table(
    heads: Sequence[tuple[str, str]],
    rows: Iterable[str],
    *,
    text_columns: int = 1,
    sorted_column: int | None = None,
    tall: bool = False,
) -> str:
    """A table with a head in both languages.

    Args:
        heads: English and Chinese name of each column.
        rows: `<tr>` elements; their texts are escaped already.
        text_columns: how many of the first columns are text, aligned left.
        sorted_column: the column that orders the rows, smallest first; the reader can then choose another.
        tall: the table scrolls inside the window.
    """
    cells = []
    for index, head in enumerate(heads):
        words = both(*head) if sorted_column is None else f"<button type=button>{both(*head)}</button>"
        kind = ' class="text"' if index < text_columns else ""
        order = ' aria-sort="ascending"' if index == sorted_column else ""
        cells.append(f'<th scope="col"{kind}{order}>{words}</th>')
    css = "scroll tall" if tall else "scroll"
    return (
        f'<div class="{css}" role="group" tabindex="0"><table><thead><tr>{"".join(cells)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
