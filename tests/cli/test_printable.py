"""Names that would move the cursor, colour the terminal, split a line, or be computed by a spreadsheet."""

import csv
import io
import json
from dataclasses import replace

import pytest
from PIL import Image
from rich.progress import Progress, TextColumn

from inception.cli import console
from inception.cli.console import make_progress, print_table, say
from inception.errors import printable
from inception.weights.bundle import save_bundle

NASTY = "a\x1b[31m\x07\x9b2J\x7f\r\nb\u202egnp"
SHOWN = r"a\x1b[31m\x07\x9b2J\x7f\r\nb\u202egnp"
CONTROLS = {chr(code) for code in (*range(32), *range(127, 160), 0x202E, 0x2028)} - {"\n"}


def test_what_is_printable():
    assert printable(NASTY) == SHOWN
    assert printable("plain, größe, 花, 👩‍🔬, عربي") == "plain, größe, 花, 👩‍🔬, عربي"
    assert printable("a\tb\nc\x1b", keep="\n") == "a\\tb\nc\\x1b"
    assert printable("\0") == r"\x00"


def test_messages_and_tables_escape_control_characters(capsys):
    say(f"left out {NASTY}")
    print_table((NASTY, "class"), [(NASTY, "3"), ("[red]:heart:", "4")], title=NASTY)
    captured = capsys.readouterr()
    assert captured.err == f"left out {SHOWN}\n"
    assert captured.out.count(SHOWN) == 3
    assert "[red]:heart:" in captured.out
    assert not CONTROLS & set(captured.out + captured.err)


def test_progress_escapes_control_characters(monkeypatch):
    shown = []
    monkeypatch.setattr(Progress, "add_task", lambda self, description, **values: shown.append(description))
    with console.progress_bar(f"{NASTY} [/red]", None):
        pass
    assert shown == [f"{SHOWN} [/red]"]
    with make_progress() as progress:
        assert not any(column.markup for column in progress.columns if type(column) is TextColumn)


@pytest.fixture
def hostile(tiny_bundle, tmp_path):
    """A bundle with nasty labels, and a folder with an image and a broken file of nasty names."""
    save_bundle(replace(tiny_bundle, labels=(NASTY, "=1+1", "-2")), tmp_path / "bundle")
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (40, 40), (200, 30, 30)).save(folder / f"{NASTY}.png")
    (folder / f"{NASTY} broken.png").write_bytes(b"no image")
    return tmp_path / "bundle", folder


@pytest.mark.parametrize("command", ["predict", "predict --json", "check", "summary", "evaluate"])
def test_no_command_prints_them(inception, hostile, command):
    bundle, folder = hostile
    name, *options = command.split()
    places = {
        "predict": (bundle, folder),
        "check": (folder,),
        "summary": (bundle,),
        "evaluate": (bundle, folder),
    }
    outcome = inception(name, *places[name], *options)
    assert outcome.out + outcome.err
    assert not CONTROLS & set(outcome.out + outcome.err)
    if options:
        assert {label["label"] for label in outcome.lines()[1]["top"]} == {NASTY, "=1+1", "-2"}


def test_errors_escape_control_characters(inception, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (("predict", NASTY, "x"), (NASTY,), ("summary", NASTY), ("models", f"--{NASTY}")):
        outcome = inception(*arguments)
        assert outcome.code == 2
        assert not CONTROLS & set(outcome.err)


def test_csv_of_predict_is_no_formula_and_reads_back(inception, hostile, monkeypatch):
    bundle, folder = hostile
    (folder / "=cmd.png").write_bytes((folder / f"{NASTY}.png").read_bytes())
    monkeypatch.chdir(folder)
    outcome = inception("predict", bundle, "=cmd.png", f"{NASTY}.png", "--csv")
    rows = list(csv.reader(io.StringIO(outcome.out)))
    assert rows[1][0] == "'=cmd.png"
    assert rows[2][0] == f"{NASTY}.png"
    cells = [cell for row in rows[1:] for cell in row]
    assert {"'=1+1", "-2"} <= set(cells)
    assert not any(cell[:1] in "=+@" and cell for cell in cells)


def test_csv_on_a_terminal_is_escaped(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(text, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout", text)
    console.csv_output().writerow((NASTY, "=\x1b", 3))
    assert text.getvalue() == f"{SHOWN},'=\\x1b,3\n"


def test_json_keeps_the_value_and_escapes_what_json_leaves(capsys):
    console.print_json({"path": NASTY})
    line = capsys.readouterr().out
    assert json.loads(line) == {"path": NASTY}
    assert not CONTROLS & set(line)
