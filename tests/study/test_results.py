"""Results on disk, and the page of them."""

import base64
import hashlib
import json
import re

import pytest

from inception.errors import DataError, UsageError
from inception.study import counts, results
from inception.study.catalog import EXPERIMENTS, find_experiment
from inception.study.charts import chart_svg
from inception.study.experiment import (
    Chart,
    Experiment,
    Finding,
    Options,
    Report,
    Series,
    Table,
    Text,
    report_from_dict,
    report_to_dict,
)
from inception.study.page import write_page

HOSTILE = "<script>alert(1)</script>"
REPORT = Report(
    findings=(Finding(Text(f"Claim {HOSTILE}", "论断"), "corrected", Text("because", "因为")),),
    tables=(Table(Text("Table", "表"), (Text("a", "甲"), Text("b", "乙")), ((Text("word", "词"), "1.5"),)),),
    charts=(
        Chart(
            "bars",
            Text("Bars", "柱"),
            Text("per cent", "%"),
            (Series(Text("s", "系列"), (1.0, 2.0), (0.5, 1.5), (1.5, 2.5)),),
            ("one", Text("two", "二")),
        ),
        Chart(
            "lines",
            Text("Lines", "线"),
            Text("norm", "范数"),
            (Series(Text("s", "系列"), (1.0, 2.0), at=(0.0, 1.0)),) * 2,
            place=Text("epochs", "轮次"),
            logarithmic=True,
        ),
    ),
    seeds=(0, 1),
    setting={"data": "digits"},
)
EXPERIMENT = Experiment(
    id="sample",
    title=Text("Sample", "样例"),
    claim=Text("It works", "可用"),
    cost=Text("nothing", "无"),
    run=lambda options, say: REPORT,
    defaults=Options(data="digits", seeds=3, epochs=2, images=10),
    quick=Options(data="digits", seeds=1, epochs=1, images=5),
)


def test_report_survives_json():
    assert report_from_dict(json.loads(json.dumps(report_to_dict(REPORT)))) == REPORT


def test_defaults_fill_what_was_not_chosen():
    assert EXPERIMENT.chosen(Options(seeds=7)) == Options(data="digits", seeds=7, epochs=2, images=10)
    assert EXPERIMENT.chosen(Options(quick=True)).images == 5


def test_result_is_written_whole_and_read_back(tmp_path):
    result = results.run_experiment(EXPERIMENT, Options(seeds=4), lambda _: None)
    assert result.command == "inception study sample --data digits --seeds 4 --epochs 2 --images 10"
    path = results.save_result(tmp_path, result)
    assert results.load_result(tmp_path, "sample") == result
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    assert results.load_result(tmp_path, "other") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"report": {}}', '{"report": 3, "options": 4}'])
def test_damaged_result_is_said(tmp_path, text):
    (tmp_path / "sample.json").write_text(text)
    with pytest.raises(DataError, match="not a result of the study"):
        results.load_result(tmp_path, "sample")


def test_page_shows_everything_in_both_languages_and_runs_only_its_script(tmp_path):
    result = results.run_experiment(EXPERIMENT, Options(quick=True), lambda _: None)
    other = counts.EXPERIMENT
    text = write_page(tmp_path, [(EXPERIMENT, result), (other, None)]).read_text(encoding="utf-8")
    assert HOSTILE not in text and "&lt;script&gt;" in text
    for words in (
        "corrected",
        "更正",
        "because",
        "因为",
        "inception study sample",
        "Not run yet",
        "尚未运行",
        "二",
    ):
        assert words in text
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1 and f"'sha256-{digest}'" in text
    assert not re.search(r'(?:src|href)="(?!#)', text)
    assert text.count("<svg") == 4


def test_charts_are_drawn_in_both_languages():
    for chart in REPORT.charts:
        assert chart.title.zh in chart_svg(chart, "zh")
        assert chart.title.en in chart_svg(chart, "en")


def test_experiments_are_eight_with_names_of_their_own():
    assert len({experiment.id for experiment in EXPERIMENTS}) == len(EXPERIMENTS) == 8
    assert find_experiment("counts") is counts.EXPERIMENT
    with pytest.raises(UsageError, match="the experiments are counts, reduction"):
        find_experiment("nonsense")
