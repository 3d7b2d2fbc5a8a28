"""The two commands of a fresh machine: which Python they take, and that a failing part stops no other."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def make(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHON"))}
    inherited.pop("VENV", None)
    return subprocess.run(
        [shutil.which("make") or "make", *arguments],
        cwd=ROOT,
        env={**inherited, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def chosen_python(folder: Path) -> str:
    """The Python of the recipe that makes the environment, with `folder` before the system's commands."""
    answer = make("-n", "demo", f"VENV={folder / 'venv'}", path=str(folder))
    assert answer.returncode == 0, answer.stderr
    return next(line.split()[0] for line in answer.stdout.splitlines() if " -m venv " in line)


@pytest.fixture
def shell(tmp_path):
    """A folder with the few commands of the recipes, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "grep", "tee", "touch", "rm"):
        (folder / name).symlink_to(shutil.which(name))
    return folder


def test_the_first_python_that_is_new_enough_is_taken(shell):
    program(shell / "python3.13", "echo python3.13")
    program(shell / "python3.12", "echo python3.12")
    assert chosen_python(shell) == "python3.13"
    program(shell / "python3", "echo python3")
    assert chosen_python(shell) == "python3"


def test_one_that_is_too_old_or_has_no_venv_is_passed_over(shell):
    program(shell / "python3", "echo")  # what the recipe's question prints for Python 3.10
    program(shell / "python3.14", "echo no module named ensurepip >&2; exit 1")
    program(shell / "python3.11", "echo python3.11")
    assert chosen_python(shell) == "python3.11"


def test_without_any_the_sentence_says_what_to_install(shell):
    answer = make("demo", f"VENV={shell / 'venv'}", path=str(shell))
    assert answer.returncode != 0
    assert "Python 3.11 or newer with its module venv is needed" in answer.stderr
    assert "apt install python3 python3-venv" in answer.stderr


@pytest.mark.parametrize("failing", [(), ("ruff", "pytest")])
def test_all_parts_run_and_all_failures_are_listed(shell, failing):
    venv = shell / "venv"
    program(venv / "bin" / "python", "exit 0")
    (venv / ".dev").touch()
    os.utime(venv / ".dev", (2**31, 2**31))
    for name in ("ruff", "mypy", "pytest"):
        text = f'echo "ran {name} $*"'
        if name in failing:
            text += f'; echo "FAILED tests/{name}.py::test_it - AssertionError" >&2; exit 1'
        program(venv / "bin" / name, text)
    answer = make("test", f"VENV={venv}", path=str(shell))
    ran = [line.split()[1] for line in answer.stdout.splitlines() if line.startswith("ran ")]
    assert ran == ["ruff", "ruff", "mypy", "pytest", "pytest"]
    assert (answer.returncode != 0) == bool(failing)
    summary = answer.stdout.partition("What failed, of all parts:")[2]
    assert summary.count("tests/pytest.py::test_it") == 2 * ("pytest" in failing)
    assert summary.count(f"{venv}/bin/ruff") == 2 * ("ruff" in failing)
