"""The drivers in benchmarks/ for kills and mutants, at the size of a test."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the driver forks")
def test_twenty_kills_change_no_bit(tmp_path):
    """In a process of its own: PyTorch does not train in a fork of a process that has trained."""
    memory = Path("/dev/shm")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(memory if memory.is_dir() else tmp_path),
    }
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "kills.py", "--kills", "20", "--json", tmp_path / "kills.json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads((tmp_path / "kills.json").read_text())
    assert (outcome["different"], outcome["failures"]) == ([], [])
    assert outcome["inside_save"] + outcome["elsewhere"] >= 20
    assert outcome["inside_save"] >= 3


def test_three_hundred_mutants_are_refused_or_harmless(tmp_path):
    specification = importlib.util.spec_from_file_location("mutants", BENCHMARKS / "mutants.py")
    mutants = importlib.util.module_from_spec(specification)
    sys.modules["mutants"] = mutants  # dataclasses look their module up
    specification.loader.exec_module(mutants)
    outcome = mutants.run(300, 0, tmp_path)
    assert outcome.wrong == []
    assert sum(outcome.refused.values()) > 200
