"""The command line in-process."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from inception.cli.main import run


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one JSON value on standard output."""
        [line] = self.out.splitlines()
        return json.loads(line)

    def lines(self) -> list[Any]:
        """One JSON value a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Inception = Callable[..., Outcome]


@pytest.fixture
def inception(capsys: pytest.CaptureFixture[str]) -> Inception:
    """Run `inception` with arguments; no command may ever show a traceback or call itself defective."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert "This is a defect" not in captured.err, captured.err
        return Outcome(code, captured.out, captured.err)

    return call
