"""Results on disk: one JSON file an experiment, written whole or not at all."""

import json
import platform
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import inception
from inception.errors import DataError
from inception.files import atomic_write_text
from inception.runtime.timing import processor_name
from inception.study.experiment import Experiment, Options, Report, Say, report_from_dict, report_to_dict


@dataclass(frozen=True)
class Result:
    """A report and how it came about.

    Attributes:
        id: the experiment's.
        report: what it found.
        options: how it was run, defaults filled in.
        command: the command line that repeats it.
        seconds: time it took.
        date: when it ended, ISO 8601, UTC.
        machine: processor, threads and versions.
    """

    id: str
    report: Report
    options: Options
    command: str
    seconds: float
    date: str
    machine: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "report": report_to_dict(self.report)}


def run_experiment(experiment: Experiment, options: Options, say: Say) -> Result:
    """Run `experiment` now and say how it was done. Raises what the experiment raises."""
    chosen = experiment.chosen(options)
    started = time.perf_counter()
    report = experiment.run(chosen, say)
    return Result(
        id=experiment.id,
        report=report,
        options=chosen,
        command=command_line(experiment, chosen),
        seconds=time.perf_counter() - started,
        date=datetime.now(tz=UTC).isoformat(timespec="seconds"),
        machine=machine(),
    )


def command_line(experiment: Experiment, chosen: Options) -> str:
    """The command that repeats a run with these options."""
    words = ["inception study", experiment.id]
    words += ["--quick"] if chosen.quick else []
    if experiment.defaults.data:
        words += [
            f"--{name} {shlex.quote(str(getattr(chosen, name)))}"
            for name in ("data", "seeds", "epochs", "images")
        ]
    words += [f"--device {chosen.device}"] if chosen.device != "cpu" else []
    return " ".join(words)


def machine() -> dict[str, str]:
    """Processor, threads and versions, by name."""
    return {
        "processor": processor_name(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "inception": inception.__version__,
    }


def result_path(folder: Path, name: str) -> Path:
    """Where the result of the experiment `name` lies."""
    return folder / f"{name}.json"


def save_result(folder: Path, result: Result) -> Path:
    """Write a result, atomically; returns its path."""
    path = result_path(folder, result.id)
    text = json.dumps(result.to_dict(), ensure_ascii=False, indent=1, allow_nan=False)
    atomic_write_text(path, text + "\n")
    return path


def load_result(folder: Path, name: str) -> Result | None:
    """The result of the experiment `name`, or None when it was not run yet. DataError when it is damaged."""
    path = result_path(folder, name)
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        report = report_from_dict(values["report"])
        return Result(**{**values, "report": report, "options": Options(**values["options"])})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a result of the study; remove it and run {name} again") from error
