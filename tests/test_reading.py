"""`docs/reading.md`: every example is made, and what the program says of it is what the page says."""

import re
import sys

import pytest
from reading_page import PAGES, answered

ENGLISH, CHINESE = (page.read_text(encoding="utf-8").splitlines() for page in PAGES)
ROWS = [line for line in ENGLISH if line.startswith("| ") and "`" in line]


def example(line: str) -> str:
    return re.split(r"(?<!\\)\|", line)[1].strip()


@pytest.mark.skipif(sys.platform == "win32", reason="some names of the examples are not allowed there")
@pytest.mark.parametrize("line", ROWS, ids=example)
def test_the_page_says_what_the_program_says(line):
    assert answered(line) == line


def test_both_languages_show_the_same_examples_and_answers():
    chinese = [line for line in CHINESE if line.startswith("| ") and "`" in line]
    assert [line.partition(" | ")[2] for line in chinese] == [line.partition(" | ")[2] for line in ROWS]
