"""The gallery as one HTML page that needs no other file: browse by layer, search by channel, branch or class.

Texts are in English and Chinese. Everything from outside is escaped, and a content security policy lets the
page run its own one script and load nothing.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from PIL import Image

from inception.evaluate.gallery import thumbnail
from inception.evaluate.markup import both, data_uri, how_it_was_made, page, paragraph
from inception.explain.examples import Example
from inception.explain.gallery import Channel
from inception.files import atomic_write_text

PICTURE_SIDE, EXAMPLE_SIDE = 160, 72


def write_gallery(
    path: Path,
    pictures: Mapping[Channel, Path],
    *,
    title: str,
    details: Mapping[str, str],
    examples: Mapping[Channel, Sequence[Example]] | None = None,
) -> None:
    """Write the page to `path`, atomically.

    Args:
        path: the HTML file.
        pictures: PNG file of every channel, in the page's order.
        title: heading of the page.
        details: how it was made, in this order.
        examples: images that excite each channel (`find_examples`).

    Raises OSError when a picture cannot be read or the page not be written.
    """
    layers: dict[str, list[str]] = {}
    for item, picture in pictures.items():
        found = examples.get(item, ()) if examples else ()
        layers.setdefault(item.layer, []).append(_card(item, picture, found))
    sections = "".join(
        f'<section data-layer="{escape(layer)}" id="{escape(_anchor(layer))}"><h2>{escape(layer)} '
        f'<small class="count">{len(cards)}</small></h2><ul class="cards">{"".join(cards)}</ul></section>'
        for layer, cards in layers.items()
    )
    links = "".join(f'<li><a href="#{escape(_anchor(layer))}">{escape(layer)}</a></li>' for layer in layers)
    atomic_write_text(path, _page(title, links, sections, details, bool(examples)))


def _anchor(layer: str) -> str:
    return "layer-" + re.sub(r"[^\w-]", "-", layer)


def _card(item: Channel, picture: Path, examples: Sequence[Example]) -> str:
    with Image.open(picture) as image:
        data = thumbnail(image, PICTURE_SIDE if max(image.size) > PICTURE_SIDE else max(image.size))
    words = [item.name, item.branch, *(example.label for example in examples)]
    branch = f'<span class="branch">{escape(item.branch)}</span>' if item.branch else ""
    shown = "".join(map(example_image, examples))
    return (
        f'<li data-words="{escape(" ".join(words).lower())}"><figure>'
        f'<img class="picture" src="{data_uri(data)}" alt="{escape(item.name)}">'
        f'<div class="examples">{shown}</div>'
        f"<figcaption><b>{escape(item.name)}</b>{branch}</figcaption></figure></li>"
    )


def example_image(example: Example) -> str:
    """An example as an image element; its texts are in the tooltip."""
    note = f"{example.label} · {example.name} · {example.value:.1f}"
    return (
        f'<img class="example" src="{data_uri(thumbnail(example.picture, EXAMPLE_SIDE))}" '
        f'alt="{escape(example.label)}" title="{escape(note)}">'
    )


def _page(title: str, links: str, sections: str, details: Mapping[str, str], with_examples: bool) -> str:
    style, script = (
        files(__package__).joinpath(name).read_text("utf-8") for name in ("gallery.css", "gallery.js")
    )
    note = paragraph(
        "Each picture was made from noise until it excited its channel as much as it could."
        + (" Beside it, the parts of real images that excite the channel most." if with_examples else ""),
        "每张图片都从噪声出发，逐步修改，直到尽可能强地激活对应的通道。"
        + ("旁边是最能激活该通道的真实图片局部。" if with_examples else ""),
    )
    body = f"""{note}
<label class="search">{both("Search", "搜索")} <input type="search" autocomplete="off"
 placeholder="mixed4a:97 · b5x5 · dog"></label> <output class="soft"></output>
<p class="none" hidden>{both("Nothing fits.", "没有符合的结果。")}</p>
{sections}
<section>{how_it_was_made(details)}</section>"""
    return page(title, escape(title), links, body, style=style, script=script)
