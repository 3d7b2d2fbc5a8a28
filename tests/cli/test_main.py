"""The frame of the command line: finding commands, exit codes, what goes to which stream."""

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points

import click
import pytest

from inception.cli import main as module
from inception.cli.main import COMMANDS, run
from inception.errors import InceptionError, UsageError

FIXED = ("import", "train", "evaluate", "predict", "check", "summary", "models")


def test_every_command_of_the_table_exists_and_has_help(inception):
    assert set(FIXED) <= COMMANDS.keys()
    listing = inception("--help").out
    for name, (_, _, text) in COMMANDS.items():
        assert name in listing
        assert text in listing
        outcome = inception(name, "--help")
        assert outcome.code == 0
        assert outcome.out.startswith(f"Usage: inception {name}")
        assert "\n  -h, --help" in outcome.out


def test_the_table_says_what_the_commands_say():
    with click.Context(module.cli) as context:
        for name, (_, _, text) in COMMANDS.items():
            command = module.cli.get_command(context, name)
            assert command is not None
            assert command.get_short_help_str(200) == text


def test_version(inception):
    import inception as package

    assert inception("--version").out.strip().endswith(package.__version__)


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["--wings"],
        ["predict"],
        ["predict", "bundle"],
        ["evaluate", "bundle"],
        ["train", "digits", "--epoch-count", "3"],
        ["train", "digits", "--epochs", "many"],
        ["summary", "googlenett"],
        ["predict", "nowhere", "x.png"],
        ["evaluate", "nowhere", "digits"],
        ["train"],
        ["train", "nowhere"],
        ["check", "nowhere"],
        ["check", "nowhere" * 50],
        ["import", "nowhere.pth", "--as", "googlenet", "-o", "bundle"],
        ["import", "nowhere.pth", "--as", "googlenet"],
    ],
    ids=" ".join,
)
def test_wrong_requests_exit_with_two_and_say_so_on_standard_error(
    inception, arguments, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    outcome = inception(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.strip()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error, code, text",
    [
        (UsageError("wrong"), 2, "inception: wrong\n"),
        (InceptionError("failed"), 1, "inception: failed\n"),
        (KeyboardInterrupt(), 130, "inception: interrupted\n"),
        (ZeroDivisionError("oh"), 1, "inception: unexpected ZeroDivisionError: oh. This is a defect; "),
    ],
)
def test_every_failure_is_one_sentence_and_a_code(error, code, text, monkeypatch, capsys):
    def fail(**options):
        raise error

    monkeypatch.setattr("inception.cli.models.list_models", lambda *arguments: fail())
    monkeypatch.delenv("INCEPTION_DEBUG", raising=False)
    assert run(["models"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    message = captured.err.lstrip("\n")  # click ends the line that shows ^C
    assert message.startswith(text)
    assert len(message.splitlines()) == 1


def test_debugging_shows_where_a_defect_is(monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("inception.cli.models.list_models", fail)
    monkeypatch.setenv("INCEPTION_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(["models"])


def test_the_installed_command_is_this_one():
    [entry] = entry_points(group="console_scripts", name="inception")
    assert entry.value == "inception.cli.main:main"


def python(script: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, **options)


def test_python_can_be_asked_for_the_package():
    command = [sys.executable, "-m", "inception", "--version"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert done.stdout.startswith("inception, version ")


@pytest.mark.parametrize(
    "statement",
    [
        "import inception",
        "import inception.cli.main",
        "from inception.cli.main import run; run(['--help'])",
        "from inception.cli.main import run; run(['fly'])",
    ],
)
def test_nothing_heavy_is_imported_for_help(statement):
    heavy = "{'torch', 'torchvision', 'numpy', 'PIL', 'sklearn', 'matplotlib', 'rich'}"
    done = python(f"{statement}\nimport sys\nprint(sorted({heavy} & sys.modules.keys()), file=sys.stderr)")
    assert done.stderr.decode().splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_error():
    script = "from inception.cli.main import main; import sys; sys.argv[1:] = ['models', '--json']; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )
    process.stdout.close()
    messages = process.stderr.read().decode()
    assert process.wait() in (1, 141)
    assert messages == ""


def test_models(inception):
    import inception as package

    assert inception("models", "--json").json() == package.list_models()
    assert inception("models", "googlenet_b*", "--json").json() == ["googlenet_bn"]
    table = inception("models")
    assert table.code == 0
    for name in package.list_models():
        assert name in table.out


def test_summary(inception, tiny_path):
    table = inception("summary", "googlenet").out
    assert "inception" in table
    assert inception("summary", tiny_path).code == 0
    content = json.loads(inception("summary", "googlenet", "--json").out)
    assert content["architecture"] == "googlenet"
    assert inception("summary", tiny_path, "--width", "2").code == 2
