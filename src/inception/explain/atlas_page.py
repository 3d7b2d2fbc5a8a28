"""The atlas as one HTML page that needs no other file: choose a cell, see what it is made of.

Texts are in English and Chinese; everything from outside is escaped, as in the gallery.
"""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from PIL import Image

from inception.evaluate.gallery import thumbnail
from inception.evaluate.markup import both, data_uri, how_it_was_made, page, paragraph, percent
from inception.explain.atlas import AtlasCell, Points, cell_classes
from inception.explain.examples import Example
from inception.explain.gallery_page import example_image
from inception.files import atomic_write_text

PICTURE_SIDE = 128


def write_atlas(
    path: Path,
    points: Points,
    cells: Sequence[AtlasCell],
    pictures: Sequence[Path],
    examples: Sequence[Sequence[Example]],
    *,
    title: str,
    details: Mapping[str, str],
) -> None:
    """Write the page to `path`, atomically.

    Args:
        path: the HTML file.
        points: what the atlas is of.
        cells: its cells, with the PNG file and the example images of each.
        pictures: see `cells`.
        examples: see `cells`.
        title: heading of the page.
        details: how it was made, in this order.

    Raises OSError when a picture cannot be read or the page not be written.
    """
    buttons, panels = [], []
    for number, (cell, picture, found) in enumerate(zip(cells, pictures, examples, strict=True)):
        with Image.open(picture) as image:
            source = data_uri(thumbnail(image, max(PICTURE_SIDE, min(image.width, 2 * PICTURE_SIDE))))
        classes = cell_classes(points, cell)
        words = " ".join([*(label for label, _ in classes), *(example.label for example in found)])
        name = ", ".join(label for label, _ in classes[:2])
        place = f"grid-row:{cell.row + 1};grid-column:{cell.column + 1}"
        buttons.append(
            f'<button type="button" class="cell" style="{place}" '
            f'data-words="{escape(words.lower())}" aria-controls="cell-{number}" title="{escape(name)}">'
            f'<img src="{source}" alt="{escape(name)}"></button>'
        )
        panels.append(_panel(number, cell, classes, found))
    grid = max(max(cell.row, cell.column) for cell in cells) + 1
    atomic_write_text(path, _page(title, grid, buttons, panels, details))


def _panel(
    number: int, cell: AtlasCell, classes: Sequence[tuple[str, float]], examples: Sequence[Example]
) -> str:
    rows = "".join(f"<li>{escape(label)} <span>{percent(share, 0)}</span></li>" for label, share in classes)
    return (
        f'<article id="cell-{number}" hidden><p class="soft">{both("Row", "行")} {cell.row + 1}, '
        f"{both('column', '列')} {cell.column + 1} · {len(cell.members)} {both('places', '个位置')}</p>"
        f"<h3>{both('Nearest places of images', '最接近的图片局部')}</h3>"
        f'<div class="examples">{"".join(map(example_image, examples))}</div>'
        f"<h3>{both('What these images are called', '这些图片的预测类别')}</h3>"
        f'<ul class="classes">{rows}</ul></article>'
    )


def _page(
    title: str, grid: int, buttons: Sequence[str], panels: Sequence[str], details: Mapping[str, str]
) -> str:
    style, script = (
        files(__package__).joinpath(f"atlas.{suffix}").read_text("utf-8") for suffix in ("css", "js")
    )
    note = paragraph(
        "Each picture shows what the network sees in a group of similar places of images: it was made from "
        "noise until the network saw in it what it sees there on average. Neighbours are alike. Choose a "
        "picture to see where it comes from.",
        "每张图片表示网络在一组相似图片局部中看到的内容：从噪声出发修改，直到网络的反应与这组局部的平均反应一致。"
        "相邻的图片彼此相似。点选图片可查看其来源。",
    )
    links = (
        f'<li><a href="#atlas">{both("Atlas", "图谱")}</a></li>'
        f'<li><a href="#made">{both("How it was made", "制作方式")}</a></li>'
    )
    body = f"""{note}
<label class="search">{both("Find a class", "查找类别")} <input type="search" autocomplete="off"></label>
<output class="soft"></output>
<section id="atlas" class="map"><div class="grid" style="--columns:{grid}">{"".join(buttons)}</div>
<aside aria-live="polite">{"".join(panels)}</aside></section>
<section id="made">{how_it_was_made(details)}</section>"""
    return page(title, escape(title), links, body, style=style, script=script)
