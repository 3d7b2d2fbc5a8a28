"""Experiment 1 against the verified facts."""

import re

import pytest
from facts import read_table

from inception.nets.registry import build_network
from inception.nets.summary import summarize
from inception.study import counts
from inception.study.experiment import Options


@pytest.fixture(scope="module")
def report():
    return counts.run(Options(quick=True), lambda _: None)


def test_printed_numbers_are_the_papers(shared):
    rows = read_table(shared, "googlenet_table1")
    printed = [(float(row["paper_params"][:-1]), float(row["paper_ops"][:-1])) for row in rows]
    assert [(item.thousands, item.millions) for item in counts.PRINTED.values()] == printed


def test_live_numbers_are_the_verified_ones(shared):
    found = counts.forensics(summarize(build_network("googlenet")), summarize(build_network("googlenet_5h")))
    facts = read_table(shared, "googlenet_table1")
    assert len(found) == len(facts) == 12
    for (row, _, _), fact in zip(found, facts, strict=True):
        assert row.parameters == int(fact["weights"]) + int(fact["biases"])
        assert row.operations == int(fact["macs"])


def test_the_stem_that_was_printed_is_separable():
    assert counts.separable_stem() == (3 * 49 * 8 + 24 * 64, 34_019_328)


def test_explanations_are_those_of_the_forensics():
    found = counts.forensics(summarize(build_network("googlenet")), summarize(build_network("googlenet_5h")))
    texts = {row.stages[0]: text.en for row, _, text in found}
    assert {name for name, text in texts.items() if text == "agrees"} == {
        "conv2",
        "inception3a",
        "inception3b",
        "fc",
    }
    assert "separable" in texts["conv1"]
    assert texts["inception4a"].startswith("fits the released network (364.0K, 72.9M)")
    assert texts["inception4b"].startswith("fits the released network (437.2K")
    assert texts["inception5a"].startswith("operations fit the released network")
    assert all("unexplained" in texts[f"inception{name}"] for name in ("4c", "4d", "4e", "5b"))


def test_blocks_are_caffes(report):
    rows = {row[0]: (int(row[1]), int(row[2])) for row in report.tables[2].rows}
    assert rows["convolution"] == (57, 2)
    assert rows["pool"] == (14, 2)
    assert rows["LRN"] == (2, 0)
    assert sum(main for main, _ in rows.values()) == 85
    assert sum(heads for _, heads in rows.values()) == 12


def test_verdicts(report):
    verdicts = {finding.claim.en: finding.verdict for finding in report.findings}
    assert verdicts["GoogLeNet has 5 million parameters"] == "corrected"
    assert verdicts["22 layers with parameters, 27 with pooling"] == "confirmed"
    assert verdicts["About 100 building blocks"] == "confirmed"
    text = " ".join(finding.explanation.en for finding in report.findings)
    assert {"6,998,552", "13,378,280", "60,965,224", "138,357,544", "1,582,671,872"} <= set(
        re.findall(r"\d[\d,]*\d", text)
    )
