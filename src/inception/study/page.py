"""All results as one HTML page in English and Chinese that needs no other file."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from inception.evaluate.markup import both, page, paragraph, table
from inception.files import atomic_write_text
from inception.study.charts import chart_svg
from inception.study.experiment import Cell, Chart, Experiment, Finding, Table, Text
from inception.study.results import Result

PAGE_FILE = "index.html"
VERDICT_NAMES = {
    "confirmed": Text("confirmed", "证实"),
    "corrected": Text("corrected", "更正"),
    "not reproducible here": Text("not reproducible here", "此处无法复现"),
}
_TITLE = Text("The claims, checked", "论断检验")
_FOOTER = Text("Intervals are 95%, by Student's t over seeds.", "区间为 95%，按各随机种子的 t 分布计算。")
_STYLE = """
.verdict { display: inline-block; border-radius: 1rem; padding: 0.1rem 0.7rem; font-size: 0.85rem;
  font-weight: 600; border: 1px solid currentColor; white-space: nowrap; }
.confirmed { color: var(--link); } .corrected { color: var(--orange); } .open { color: var(--soft); }
.claims { list-style: none; padding: 0; margin: 0.8rem 0; display: grid; gap: 0.9rem; }
.claims b { margin-right: 0.5rem; }
.claims p { margin: 0; }
section > .scroll { margin: 0.6rem 0 1.2rem; }
section { min-width: 0; }
code { font-size: 0.85rem; overflow-wrap: anywhere; }
"""


def write_page(folder: Path, found: Sequence[tuple[Experiment, Result | None]]) -> Path:
    """Write `index.html` of the results into `folder`, atomically; returns its path.

    Args:
        folder: where the results lie.
        found: every experiment with its result, None where it was not run yet.

    Raises UsageError when matplotlib is not installed, OSError when the file cannot be written.
    """
    links = "".join(f'<li><a href="#{item.id}">{_both(item.title)}</a></li>' for item, _ in found)
    bodies = "\n".join(_section(experiment, result) for experiment, result in found)
    summary = f"<h2>{both('Claim and verdict', '论断与结论')}</h2>{_overview(found)}"
    body = f'<section id="summary">{summary}</section>\n{bodies}\n<footer>{_both(_FOOTER)}</footer>'
    script = files("inception.evaluate").joinpath("report.js").read_text("utf-8")
    text = page(_TITLE.en, _both(_TITLE), links, body, style=_STYLE, script=script)
    path = folder / PAGE_FILE
    atomic_write_text(path, text)
    return path


def _both(text: Text) -> str:
    return both(text.en, text.zh)


def _cell(cell: Cell) -> str:
    return escape(cell) if isinstance(cell, str) else _both(cell)


def _badge(verdict: str) -> str:
    css = verdict if verdict in ("confirmed", "corrected") else "open"
    return f'<span class="verdict {css}">{_both(VERDICT_NAMES[verdict])}</span>'


def _overview(found: Sequence[tuple[Experiment, Result | None]]) -> str:
    rows = [
        f'<tr><td class="text">{_both(finding.claim)}</td>'
        f'<td class="text">{_badge(finding.verdict)}</td></tr>'
        for _, result in found
        if result is not None
        for finding in result.report.findings
    ]
    return table([("Claim", "论断"), ("Verdict", "结论")], rows, text_columns=2)


def _section(experiment: Experiment, result: Result | None) -> str:
    head = f'<section id="{experiment.id}"><h2>{_both(experiment.title)}</h2>'
    if result is None:
        hint = paragraph(
            f"Not run yet: inception study {experiment.id}", f"尚未运行：inception study {experiment.id}"
        )
        return f"{head}{hint}</section>"
    warning = ""
    if result.options.quick:
        warning = paragraph(
            "A quick run: it shows that everything works; its numbers mean nothing.",
            "这是快速试运行，仅说明程序可用，数值没有意义。",
        )
    findings = "".join(map(_finding, result.report.findings))
    charts = "".join(map(_chart, result.report.charts))
    tables = "".join(map(_table, result.report.tables))
    return f'{head}{warning}<ul class="claims">{findings}</ul>{charts}{tables}{_record(result)}</section>'


def _finding(finding: Finding) -> str:
    return (
        f"<li><b>{_both(finding.claim)}</b> {_badge(finding.verdict)}<p>{_both(finding.explanation)}</p></li>"
    )


def _chart(chart: Chart) -> str:
    parts = []
    for language, code in (("en", "en"), ("zh", "zh-CN")):
        svg = chart_svg(chart, language)  # type: ignore[arg-type]
        words = escape(getattr(chart.title, language))
        named = svg.replace("<svg ", f'<svg role="img" aria-label="{words}" ', 1)
        parts.append(f'<div lang="{code}">{named}</div>')
    return f'<div class="scroll" role="group" tabindex="0">{"".join(parts)}</div>'


def _table(content: Table) -> str:
    words = [all(not _numeric(row[column]) for row in content.rows) for column in range(len(content.heads))]
    rows = []
    for row in content.rows:
        cells = (
            f'<td class="text">{_cell(cell)}</td>' if word else f"<td>{_cell(cell)}</td>"
            for cell, word in zip(row, words, strict=True)
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = "".join(
        f'<th scope="col"{" class=text" if word else ""}>{_both(head)}</th>'
        for head, word in zip(content.heads, words, strict=True)
    )
    return (
        f'<h3>{_both(content.title)}</h3><div class="scroll" role="group" tabindex="0"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _numeric(cell: Cell) -> bool:
    return isinstance(cell, str) and cell.lstrip("−-+")[:1] in set("0123456789")


def _record(result: Result) -> str:
    seeds = ", ".join(map(str, result.report.seeds))
    setting = ", ".join(f"{name} {value}" for name, value in result.report.setting.items())
    machine = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    lines = [
        (("Command", "命令"), f"<code>{escape(result.command)}</code>"),
        (("Time", "用时"), escape(f"{result.seconds:.0f} s · {result.date}")),
        (("Seeds", "随机种子"), escape(seeds or "–")),
        (("Setting", "设置"), escape(setting or "–")),
        (("Machine", "机器"), escape(machine)),
    ]
    rows = "".join(f"<dt>{both(*name)}</dt><dd>{value}</dd>" for name, value in lines)
    summary = both("How it was run", "运行记录")
    return f"<details><summary>{summary}</summary><dl class=details>{rows}</dl></details>"
