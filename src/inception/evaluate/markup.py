"""Pieces of HTML that the report, the study's page and galleries share; plain texts given are escaped."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files


def page(title: str, heading: str, links: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole page in both languages that needs no other file and may run its own script alone.

    Args:
        title: plain text, for the window.
        heading: HTML of the first heading.
        links: `<li>` elements of the navigation.
        body: HTML of the main part.
        style: CSS after that of the report.
        script: JavaScript after that which changes the language.
    """
    style = files(__package__).joinpath("report.css").read_text("utf-8") + style
    script = files(__package__).joinpath("language.js").read_text("utf-8") + script
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en" data-language="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{heading}</h1>
<button class="language" type="button">{both("中文", "English")}</button></header>
<nav><ul>{links}</ul></nav>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def data_uri(picture: bytes) -> str:
    """A PNG or JPEG file as the source of an `<img>`."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def both(english: str, chinese: str) -> str:
    """A text in both languages; the page shows one of them."""
    return f'<span lang="en">{escape(english)}</span><span lang="zh-CN">{escape(chinese)}</span>'


def paragraph(english: str, chinese: str) -> str:
    """A remark in both languages."""
    return f'<p class="soft">{both(english, chinese)}</p>'


def how_it_was_made(details: Mapping[str, str]) -> str:
    """The last section of a page of pictures: a heading, and names with texts in the order given."""
    made = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in details.items())
    return f'<h2>{both("How it was made", "制作方式")}</h2><dl class="details">{made}</dl>'


def ratio_cells(ratios: Iterable[float | None]) -> str:
    """Cells of a sortable table: fractions in per cent, a dash where undefined."""
    return "".join(
        f'<td data-value="{"" if ratio is None else format(ratio, ".6f")}">{percent(ratio)}</td>'
        for ratio in ratios
    )


def numbers_list(numbers: Iterable[tuple[tuple[str, str], str, str]]) -> str:
    """Large numbers side by side: (English and Chinese name, the number, HTML of a remark) each."""
    return "<dl class=numbers>{}</dl>".format(
        "".join(
            f"<div><dt>{both(*name)}</dt>"
            f"<dd><span class=big>{value}</span><span class=soft>{note}</span></dd></div>"
            for name, value, note in numbers
        )
    )


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
