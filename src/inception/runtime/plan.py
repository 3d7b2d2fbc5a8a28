"""The plan of an optimised bundle: which engine answers, at which precision, and what was measured.

runtime/plan.json     the plan
runtime/model.xml     with runtime/model.bin: the network for OpenVINO
runtime/model.onnx    the network for ONNX Runtime
runtime/network.json  with runtime/network.weights: the network for the native engine
"""

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from inception.errors import BundleError
from inception.weights.manifest import member_bytes

PLAN_SCHEMA = 1
FOLDER, PLAN_FILE = "runtime", "plan.json"
EngineName = Literal["torch", "inductor", "openvino", "onnxruntime", "native"]
PlanPrecision = Literal["float32", "bfloat16", "int8"]
ARTEFACTS: dict[str, tuple[str, ...]] = {
    "torch": (),
    "inductor": (),
    "openvino": ("model.xml", "model.bin"),
    "onnxruntime": ("model.onnx",),
    "native": ("network.json", "network.weights"),
}
"""Files each engine reads. The names are fixed, so that a plan cannot point outside its bundle."""
PRECISIONS = ("float32", "bfloat16", "int8")
_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class Plan:
    """How a bundle is run.

    Attributes:
        engine: `native` (this project's own), `openvino`, `onnxruntime`, `torch` (rewritten, eager) or
            `inductor` (rewritten, compiled).
        precision: `float32`, `bfloat16` or `int8`.
        threads: how many threads the engine may use.
        batch: images for which it was measured, and prepared; any other number works too.
        files: SHA-256 of each artefact, by name.
        measured: one row a candidate, as `inception benchmark` prints them, each with its `deviation`.
        judged: of the chosen one from the float32 network.
        machine: on which machine and with which versions.
        skipped: engine -> why it was no candidate.
    """

    engine: EngineName
    precision: PlanPrecision
    threads: int
    batch: int
    files: dict[str, str] = field(default_factory=dict)
    measured: tuple[dict[str, Any], ...] = ()
    judged: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The content of `plan.json`."""
        return json.dumps({"schema": PLAN_SCHEMA, **asdict(self)}, indent=2, allow_nan=False).encode()


def write_plan(plan: Plan, artefacts: dict[str, bytes], folder: Path) -> None:
    """Write `plan`, with the digests of `artefacts`, and the artefacts below the bundle `folder`."""
    target = folder / FOLDER
    target.mkdir()
    for name, content in artefacts.items():
        (target / name).write_bytes(content)
    files = {name: hashlib.sha256(content).hexdigest() for name, content in artefacts.items()}
    (target / PLAN_FILE).write_bytes(Plan(**{**vars(plan), "files": files}).to_json())


def read_plan(path: Path) -> tuple[Plan, dict[str, bytes]] | None:
    """The plan in the bundle at `path` (folder or `.zip`) and its artefacts; None when it has none.

    Raises BundleError for a plan that is damaged, or of a newer version.
    """
    text = read_member(path, f"{FOLDER}/{PLAN_FILE}")
    if text is None:
        return None
    try:
        plan = _parse(text)
        contents = {name: _verified(path, name, plan.files[name]) for name in ARTEFACTS[plan.engine]}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise BundleError(
            f"{path}: {FOLDER}/{PLAN_FILE} is damaged ({type(error).__name__}: {error}); "
            "optimise the bundle again"
        ) from error
    return plan, contents


def _parse(text: bytes) -> Plan:
    if len(text) > _LIMIT_BYTES:
        raise ValueError(f"more than {_LIMIT_BYTES} bytes")
    values = json.loads(text)
    if values.pop("schema") != PLAN_SCHEMA:
        raise ValueError("it has another schema than this version reads")
    plan = Plan(**values)
    if plan.engine not in ARTEFACTS or plan.precision not in PRECISIONS:
        raise ValueError(f"unknown engine {plan.engine!r:.60} or precision {plan.precision!r:.60}")
    if not all(type(value) is int and 1 <= value <= 4096 for value in (plan.threads, plan.batch)):
        raise ValueError("threads and batch must be whole numbers in 1..4096")
    return plan


def _verified(path: Path, name: str, digest: str) -> bytes:
    content = read_member(path, f"{FOLDER}/{name}")
    if content is None or hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{name} is missing or does not match its checksum")
    return content


def read_member(path: Path, name: str) -> bytes | None:
    """The bytes of one file of the bundle at `path` (folder or `.zip`); None when it is not there."""
    try:
        return member_bytes(path, name)
    except OSError:
        return None
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError) as error:
        raise BundleError(f"{path} cannot be read as a bundle: {error}") from error
