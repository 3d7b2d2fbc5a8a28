"""CSV that spreadsheets open: no cell is a formula, and what is written is read again."""

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import inception
from inception.data.csv_text import CsvWriter, protected, unprotected
from inception.data.dataset import Dataset
from inception.data.sources import open_dataset

FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    "＋1",
    "－1",
    "＠a",
]


@pytest.mark.parametrize("cell", FORMULAS)
def test_formulas_get_one_apostrophe(cell):
    assert protected(cell) == f"'{cell}"
    assert unprotected(f"'{cell}") == cell


@pytest.mark.parametrize("cell", ["", "cat", "-1", "+0.5", "-1e-05", "-.5", "1=1", "'tis", "a@b", "'", "''"])
def test_other_texts_stay(cell):
    assert protected(cell) == cell
    assert unprotected(cell) == cell


@given(st.text(alphabet="'=+-@\t\r\n＝1.ea", max_size=6))
def test_whatever_is_written_is_read_again(cell):
    assert unprotected(protected(cell)) == cell


def test_numbers_stay_numbers():
    stream = io.StringIO()
    CsvWriter(stream).writerows([(-1, -0.5, None, "-3", "=x"), (True, 10**20, "", "a,b", 'c"d')])
    assert list(csv.reader(io.StringIO(stream.getvalue()))) == [
        ["-1", "-0.5", "", "-3", "'=x"],
        ["True", "100000000000000000000", "", "a,b", 'c"d'],
    ]


def test_our_own_csv_is_read_as_it_was_meant(tmp_path):
    from PIL import Image

    rows = []
    for name, label in (("-a.png", "=one"), ("=b.png", "two"), ("'c.png", "'tis"), ("d.png", "=one")):
        Image.new("RGB", (20, 20), (len(rows) * 60, 0, 0)).save(tmp_path / name)
        rows.append((name, label))
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        CsvWriter(stream).writerows([("path", "label"), *rows])
    assert "'=one" in (tmp_path / "table.csv").read_text()
    dataset: Dataset = open_dataset(str(tmp_path / "table.csv"))
    found = {(sample.path, dataset.labels[sample.label]) for sample in dataset.samples}
    assert found == set(rows)


def test_the_page_of_the_server_protects_the_same_cells():
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    page = Path(inception.__file__).with_name("serve") / "page" / "page.js"
    [line] = [line.strip() for line in page.read_text("utf-8").splitlines() if "const plain = " in line]
    cells = [*FORMULAS, "", "cat", "-1", "+0.5", "-1e-05", "-.5", "1=1", "'tis", "'=a", "a@b"]
    script = f"{line} console.log(JSON.stringify({json.dumps(cells)}.map(plain)))"
    done = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [protected(cell) for cell in cells]
