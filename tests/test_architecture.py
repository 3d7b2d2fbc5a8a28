"""The shape of the code itself: imports point downwards, files and functions stay small."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "inception"
# From the bottom up; a room may import those before it (and itself).
ROOMS = (
    "errors",
    "files",
    "native",
    "nets",
    "data",
    "weights",
    "runtime",
    "evaluate",
    "train",
    "explain",
    "serve",
    "study",
    "cli",
    "__main__",
)
MAX_FILE_LINES, MAX_FUNCTION_LINES = 420, 70
FILES = sorted(SOURCE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "inception" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("path", [p for p in FILES if p != SOURCE / "__init__.py"], ids=module_name)
def test_imports_point_downwards(path):
    own = room_of(module_name(path))
    assert own is not None, f"{path} is in no known room"
    above = {
        name for name in imported(path) if (room := room_of(name)) and ROOMS.index(room) > ROOMS.index(own)
    }
    assert not above


def test_no_import_cycles():
    modules = {module_name(path): path for path in FILES}
    graph = {name: imported(path) & modules.keys() - {name, "inception"} for name, path in modules.items()}
    # Importing a.b also runs a/__init__: packages are nodes too, but ours import nothing.
    remaining = dict(graph)
    while True:
        leaves = {name for name, needs in remaining.items() if not needs & remaining.keys()}
        if not leaves:
            break
        for name in leaves:
            del remaining[name]
    # The package's own __init__ imports names for type checkers only.
    assert set(remaining) <= {"inception"}


def test_nets_import_torch_alone():
    allowed = (
        "torch",
        "inception",
        "collections",
        "dataclasses",
        "typing",
        "difflib",
        "fnmatch",
        "inspect",
        "copy",
    )
    allowed += ("contextlib", "itertools", "math", "functools", "operator")
    for path in (SOURCE / "nets").glob("*.py"):
        foreign = {name for name in imported(path) if name.split(".")[0] not in allowed}
        assert not foreign, f"{path.name} imports {foreign}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_and_functions_are_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


def test_help_needs_no_heavy_import():
    """What `inception --help` imports: the table of commands, click, and nothing that takes time."""
    light = {"errno", "io", "os", "sys", "contextlib", "importlib", "click", "inception"}
    names = {
        name
        for name in imported(SOURCE / "cli" / "main.py")
        if "." not in name or name.startswith("inception.")
    }
    errors = {"inception.errors", "inception.errors.InceptionError", "inception.errors.printable"}
    assert names <= light | errors
