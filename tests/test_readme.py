"""The documentation stays true: its commands parse and run, its links, names and tables exist."""

import ast
import dataclasses
import html
import json
import re
import shlex
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from PIL import Image

import inception
from inception.cli.main import COMMANDS, cli, run
from inception.nets.endpoints import _CROSSWALK
from inception.nets.registry import build_network, list_models
from inception.train.config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "inception"
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
PAGES = [ENGLISH, CHINESE, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
# What makes a documented training run small enough for a test.
TINY = ["--width", "0.05", "--epochs", "1"]
TINY_CONFIG = "TrainConfig(width=0.05, epochs=1, "


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def table_cells(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table after `heading` (or after its first column's title), without its head."""
    lines = text_of(page).partition(heading)[2].splitlines()[1:]
    start = next(number for number, line in enumerate(lines) if line.startswith("|--"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


INCEPTION_LINES = [
    pytest.param(line, id=f"{named(page)}: {line}")
    for page in PAGES
    if page != CHINESE
    for line in commands(page)
    if line.startswith("inception ")
]


def test_both_languages_have_the_same_commands_tables_and_code():
    assert commands(ENGLISH) == commands(CHINESE) != []

    def code(page: Path) -> list[str]:
        return [re.sub(r"  # .*", "", block) for block in blocks(page, "python")]

    assert code(ENGLISH) == code(CHINESE) != []
    assert blocks(ENGLISH, "text") == blocks(CHINESE, "text") != []
    for pattern in (r"(?m)^#+ ", r"(?m)^(?:\||- |\d\. )", r"\]\(docs/[^)]*\)"):
        chinese = re.findall(pattern, prose(CHINESE).replace("reading.zh-CN.md", "reading.md"))
        assert re.findall(pattern, prose(ENGLISH)) == chinese, pattern
    measured = [
        re.findall(r"\b0\.\d{3}\b|\b1\.000\b|\b\d,\d{3},\d{3}\b", text_of(p)) for p in (ENGLISH, CHINESE)
    ]
    assert measured[0] == measured[1]


def test_walkthrough_is_the_same_in_both_languages():
    english, chinese = ROOT / "docs/walkthrough.md", ROOT / "docs/walkthrough.zh-CN.md"
    assert commands(english) == commands(chinese) != []

    def code(page: Path) -> list[str]:
        return [re.sub(r"  # .*", "", block) for block in blocks(page, "python")]

    assert code(english) == code(chinese) != []
    for pattern in (r"(?m)^#+ \d+", r"(?m)^\|", r"!\[[^]]*\]\(([\w/-]+)"):
        assert re.findall(pattern, prose(english)) == re.findall(pattern, prose(chinese)), pattern
    numbers = [re.findall(r"\d{1,3}(?:,\d{3})+", prose(page)) for page in (english, chinese)]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("line", INCEPTION_LINES)
def test_documented_command_parses(line):
    name, *arguments = shlex.split(line)[1:]
    group = click.Context(cli, help_option_names=["-h", "--help"])  # click remembers the first parse's names
    command = cli.get_command(group, name)
    assert command is not None, f"there is no command {name}"
    context = command.make_context(name, list(arguments), parent=group)
    if name == "train":
        options = {key: value for key, value in context.params.items() if value is not None}
        TrainConfig.from_dict({k: v for k, v in options.items() if k not in ("config_path", "as_json")})


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_named_in_passing_exist(page):
    for code in inline_code(page):
        words = code.split()
        if words[0] != "inception" or len(words) < 2:
            continue
        assert words[1] in COMMANDS, code
        command = cli.get_command(click.Context(cli), words[1])
        known = {
            flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in words[2:] if word.startswith("-")} <= known, code


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_make_targets_and_extras_exist(page):
    targets = set(re.findall(r"(?m)^([a-z]+):", text_of(ROOT / "Makefile")))
    code = [*commands(page), *inline_code(page)]
    assert {m[1] for text in code if (m := re.match(r"make (\w+)", text))} <= targets
    extras = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    for text in code:
        for names in re.findall(r"pip install .*\.\[([\w,]+)\]", text):
            assert set(names.split(",")) <= extras.keys()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"(?m)^#+ (.*)$", text_of(file))
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, target


def test_training_options_are_those_of_the_dataclass():
    rows = [
        (name, html.unescape(meaning))
        for name, _, meaning in table_cells(ROOT / "docs/training.md", "## Options")
    ]
    assert rows == [(item.name, item.metadata["help"]) for item in dataclasses.fields(TrainConfig)]


def test_tour_names_every_source_file_once():
    files = {
        path.relative_to(SOURCE).as_posix()
        for suffix in ("py", "css", "js")
        for path in SOURCE.rglob(f"*.{suffix}")
        if path.name != "__init__.py" or path.parent == SOURCE
    }
    listed = re.findall(r"(?m)^- `([^`]+)`:", text_of(ROOT / "docs/tour.md"))
    assert sorted(listed) == sorted(files)


@pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=named)
def test_networks_and_their_parameters(page):
    rows = {row[0]: row[1] for row in map(_cells, text_of(page).splitlines()) if row[0] in list_models()}
    counted = {name: _parameters(name) for name in list_models()}
    assert rows == counted


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip("|").split("|")]


def _parameters(name: str) -> str:
    with torch.device("meta"):
        network = build_network(name, aux_logits=False)
    return f"{sum(parameter.numel() for parameter in network.parameters()):,}"


def test_stage_names_are_those_of_the_alias_table():
    rows = [tuple(row) for row in table_cells(ROOT / "docs/models.md", "## Stage names")]
    assert rows == [tuple(name or "" for name in names) for names in _CROSSWALK]


def test_known_deviations_are_those_marked_in_the_code():
    listed = {row[0] for row in table_cells(ROOT / "docs/models.md", "## Known deviations")}
    marked = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if re.search(r"\bdeviation:", text_of(path))
    }
    assert listed == marked


def test_troubleshooting_is_titled_by_texts_of_the_program():
    said = [
        node.value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    for title in re.findall(r"(?m)^### (.*)$", text_of(ROOT / "docs/troubleshooting.md")):
        if title.startswith("cross_entropy_loss()"):  # PyTorch's own
            continue
        for part in filter(None, map(str.strip, title.split("…"))):
            assert any(part in text for text in said), f"{title!r}: nothing in the program says {part!r}"


def test_dependencies_are_all_explained():
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(name for names in extras.values() for name in names)]
    names = {re.split(r"[\[<>=]", name)[0] for name in wanted} - {"inception"}
    explained = set(inline_code(ROOT / "docs/dependencies.md"))
    assert names | extras.keys() <= explained


def test_changelog_is_headed_by_this_version():
    titles = re.findall(r"(?m)^## \[(.*?)\]", text_of(ROOT / "CHANGELOG.md"))
    assert titles[:2] == ["Unreleased", inception.__version__]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with the `photos` and `new` that the documentation speaks of."""
    from sklearn.datasets import load_digits

    folder, digits = tmp_path_factory.mktemp("readme"), load_digits()

    def write(index: int, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.rint(digits.images[index] * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(path)

    for digit, name in enumerate(("zero", "one", "two")):
        indices = np.flatnonzero(digits.target == digit)
        for number, index in enumerate(indices[:20]):
            write(index, folder / "photos" / name / f"{number}.png")
        write(indices[20], folder / "new" / f"{name}.png")
    return folder


def test_quick_commands_and_python_blocks_run(workplace, monkeypatch, capsys):
    """The README's commands on `photos`, in its order, then all Python blocks."""
    monkeypatch.chdir(workplace)
    lines = [shlex.split(line)[1:] for line in commands(ENGLISH) if line.startswith("inception ")]
    quick = [
        words for words in lines if any("photos" in w for w in words) or words[0] in ("models", "summary")
    ]
    assert {words[0] for words in quick} == {"check", "train", "evaluate", "predict", "models", "summary"}
    for words in quick:
        capsys.readouterr()
        code = run([*words, *TINY] if words[0] == "train" else words)
        out, err = capsys.readouterr()
        assert code == 0, f"inception {' '.join(words)}: {err}"
        if words[0] == "predict":
            answers = [json.loads(line) for line in out.splitlines()]
            assert all({"path", "top"} == answer.keys() for answer in answers)
            assert {"label", "index", "probability"} == answers[0]["top"][0].keys()
    left = {path.name for path in Path("runs/photos").iterdir()}
    assert {"bundle", "metrics.jsonl", "checkpoints", "report.html"} <= left
    for page in [ENGLISH, *sorted(ROOT.glob("docs/*.md"))]:
        shared: dict[str, object] = {}
        for number, block in enumerate(blocks(page, "python"), start=1):
            source = block.replace("TrainConfig(", TINY_CONFIG)
            # The walk-through is one session; elsewhere every block stands for itself.
            names = shared if page.name.startswith("walkthrough") else {}
            exec(compile(source, f"{named(page)}, Python block {number}", "exec"), names)


def test_toml_blocks_are_configurations():
    for page in PAGES:
        for block in blocks(page, "toml"):
            values = {name.replace("-", "_"): value for name, value in tomllib.loads(block).items()}
            TrainConfig.from_dict(values)
