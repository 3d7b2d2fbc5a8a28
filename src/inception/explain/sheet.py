"""Attribution sheets: all methods side by side for several images, and what their tests say on average."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from inception.evaluate.gallery import thumbnail
from inception.evaluate.markup import both, data_uri, how_it_was_made, page, paragraph, table
from inception.explain.pictures import Cell
from inception.explain.trust import mean_interval
from inception.files import atomic_write_text

PICTURE_SIDE = 224
Record = dict[str, Any]
"""What is known of one image and method: `path`, `method`, `target`, and with tests `trust` (of
`Curves.to_dict`) and `randomised` (of `randomisation`)."""

_STYLE = """
.language { white-space: nowrap; }
main > .soft:first-child { margin-top: 1.2rem; }
.maps { list-style: none; margin: 0.8rem 0 0; padding: 0; display: grid; gap: 0.9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(46%, 10rem), 1fr)); }
.maps img { width: 100%; height: auto; display: block; border-radius: 0.35rem; }
.maps figcaption { overflow-wrap: anywhere; }
.maps figcaption span { display: block; color: var(--soft); }
#scores td:first-child { white-space: nowrap; }
#scores p { margin-top: 1rem; }
"""


@dataclass(frozen=True)
class Summary:
    """What the tests of one method say on average.

    Attributes:
        method: its name.
        images: how many.
        deletion, insertion: mean areas under the curves; deletion is better low, insertion high.
        deletion_gain, insertion_gain: how much better than random maps: mean, and the ends of its 95%
            bootstrap interval over the images.
        likeness: (stage, mean rank correlation of the map when weights are random down to it).
    """

    method: str
    images: int
    deletion: float
    insertion: float
    deletion_gain: tuple[float, float, float]
    insertion_gain: tuple[float, float, float]
    likeness: tuple[tuple[str, float], ...]


def summarize(records: Sequence[Record], seed: int = 0) -> list[Summary]:
    """Means over the images, a summary for each method in order of appearance.

    Every record needs `trust`; where they have `randomised`, it is averaged too. `seed` is the bootstrap's.
    """
    found = []
    for method in dict.fromkeys(record["method"] for record in records):
        own = [record for record in records if record["method"] == method]
        trusts = [record["trust"] for record in own]
        levels = [record.get("randomised", ()) for record in own]
        likeness = tuple(
            (same[0]["down_to"], sum(level["spearman"] for level in same) / len(same))
            for same in zip(*levels, strict=True)
        )
        found.append(
            Summary(
                method,
                len(own),
                _mean(trusts, "deletion"),
                _mean(trusts, "insertion"),
                mean_interval([trust["deletion_gain"] for trust in trusts], seed),
                mean_interval([trust["insertion_gain"] for trust in trusts], seed),
                likeness,
            )
        )
    return found


def random_means(records: Sequence[Record]) -> tuple[float, float]:
    """Mean deletion and insertion score of the random maps that the records' images were compared with."""
    first = list({record["path"]: record["trust"] for record in records}.values())
    return _mean(first, "random_deletion"), _mean(first, "random_insertion")


def _mean(trusts: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(trust[name] for trust in trusts) / len(trusts)


def gain_text(gain: tuple[float, float, float]) -> str:
    """`+0.110 (+0.030 to +0.170)`."""
    return f"{gain[0]:+.3f} ({gain[1]:+.3f} to {gain[2]:+.3f})"


def write_sheet(
    path: Path,
    rows: Sequence[Sequence[Cell]],
    heads: Sequence[str],
    records: Sequence[Record],
    *,
    title: str,
    details: Mapping[str, str],
    seed: int = 0,
) -> None:
    """Write the sheet as one HTML page that needs no other file, atomically.

    Args:
        path: the HTML file.
        rows: for each image its own picture and one for each method, with texts.
        heads: what the pictures of a row are.
        records: of every image and method; with `trust`, the means stand at the top.
        title: heading of the page.
        details: how it was made, in this order.
        seed: of the bootstrap.

    Raises OSError when the page cannot be written.
    """
    means = _means(records, seed) if records and "trust" in records[0] else ""
    body = paragraph(
        "Where in each image the answer comes from, by every method. Signed maps are red for the class and "
        "blue against it.",
        "各种方法给出的、每张图片中答案的依据所在。带符号的热图中，红色支持该类别，蓝色反对该类别。",
    )
    body += means + "".join(f"<section>{_image(row, heads)}</section>" for row in rows)
    body += f'<section id="made">{how_it_was_made(details)}</section>'
    links = f'<li><a href="#made">{both("How it was made", "制作方式")}</a></li>'
    if means:
        links = f'<li><a href="#scores">{both("Scores", "得分")}</a></li>' + links
    atomic_write_text(path, page(title, escape(title), links, body, style=_STYLE))


def _image(row: Sequence[Cell], heads: Sequence[str]) -> str:
    shown = []
    for (picture, text), head in zip(row, heads, strict=True):
        lines = [line for line in text.split("\n") if line]
        if head == heads[0]:
            title, lines = lines[0], lines[1:]
        notes = "".join(f"<span>{escape(line)}</span>" for line in lines)
        source = data_uri(thumbnail(picture, max(PICTURE_SIDE, picture.width)))
        shown.append(
            f'<li><figure><img src="{source}" alt="{escape(head)}">'
            f"<figcaption><b>{escape(head)}</b>{notes}</figcaption></figure></li>"
        )
    return f'<h2>{escape(title)}</h2><ul class="maps">{"".join(shown)}</ul>'


def _means(records: Sequence[Record], seed: int) -> str:
    summaries = summarize(records, seed)
    deletion, insertion = random_means(records)
    heads = [
        ("method", "方法"),
        ("deletion", "删除"),
        ("better than random by", "优于随机"),
        ("insertion", "插入"),
        ("better than random by", "优于随机"),
    ]
    lines = [
        [
            summary.method,
            f"{summary.deletion:.3f}",
            gain_text(summary.deletion_gain),
            f"{summary.insertion:.3f}",
            gain_text(summary.insertion_gain),
        ]
        for summary in summaries
    ]
    lines.append(["random map", f"{deletion:.3f}", "", f"{insertion:.3f}", ""])
    note = paragraph(
        f"Means of {summaries[0].images} images. Deletion: area under the probability of the class while the "
        "most important pixels vanish; low is good. Insertion: while they come back into a blurred image; "
        "high is good. In brackets the 95% interval, by bootstrap over the images.",
        f"{summaries[0].images} 张图片的平均值。删除：依次去掉最重要的像素时类别概率曲线下的面积，越低越好。"
        "插入：把它们放回模糊图片时的面积，越高越好。括号内为按图片自助法得到的 95% 区间。",
    )
    body = note + table(heads, _cells(lines)) + _likeness(summaries)
    return f'<section id="scores"><h2>{both("Scores", "得分")}</h2>{body}</section>'


def _likeness(summaries: Sequence[Summary]) -> str:
    stages = [stage for stage, _ in summaries[0].likeness]
    if not stages:
        return ""
    note = paragraph(
        "How alike the map stays (rank correlation) when weights are replaced by random ones, from the "
        "classifier down to a stage; low is good: such a map shows what was learnt.",
        "从分类器到某一级的权重换成随机值后热图的相似程度（秩相关），越低越好：说明热图取决于学到的内容。",
    )
    heads = [("method", "方法"), *((f"random to {stage}", f"随机至 {stage}") for stage in stages)]
    lines = [[summary.method, *(f"{value:.2f}" for _, value in summary.likeness)] for summary in summaries]
    return note + table(heads, _cells(lines))


def _cells(lines: Sequence[Sequence[str]]) -> list[str]:
    return ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines]
