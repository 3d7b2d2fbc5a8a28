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

from inception.errors import BundleError, first_line
from inception.files import parse_json
from inception.weights.manifest import MANIFEST_LIMIT_BYTES, WEIGHTS_FILE, member_bytes, member_size

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
_LIMIT_BYTES, _LIMIT_VALUES = 1 << 20, 1 << 16
DESCRIPTION_LIMIT_BYTES, SLACK_BYTES, MOST_BYTES = 32 << 20, 64 << 20, 4 << 30
"""Of a description; what weights may have beyond eight times those of the bundle; and of any file."""


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
    text = read_member(path, f"{FOLDER}/{PLAN_FILE}", _LIMIT_BYTES)
    if text is None:
        return None
    try:
        plan = _parse(text)
        contents = {name: _verified(path, name, plan.files[name]) for name in ARTEFACTS[plan.engine]}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise BundleError(
            f"{path}: {FOLDER}/{PLAN_FILE} is damaged ({first_line(error):.200}); optimise the bundle again"
        ) from error
    return plan, contents


def _parse(text: bytes) -> Plan:
    values = parse_json(text, _LIMIT_VALUES, finite=True)
    if not isinstance(values, dict) or values.pop("schema", None) != PLAN_SCHEMA:
        raise ValueError("it has another schema than this version reads")
    if not {"engine", "precision", "threads", "batch"} <= values.keys() <= Plan.__dataclass_fields__.keys():
        raise ValueError("it has other values than this version writes")
    plan = Plan(**values)
    kinds = {"files": dict, "measured": list, "judged": dict, "machine": dict, "skipped": dict}
    for name, kind in kinds.items():
        if name in values and not isinstance(values[name], kind):
            raise ValueError(f"{name} is of the wrong kind")
    if plan.engine not in ARTEFACTS or plan.precision not in PRECISIONS:
        raise ValueError(f"unknown engine {plan.engine!r:.60} or precision {plan.precision!r:.60}")
    if not all(type(value) is int and 1 <= value <= 4096 for value in (plan.threads, plan.batch)):
        raise ValueError("threads and batch must be whole numbers in 1..4096")
    return plan


def _verified(path: Path, name: str, digest: str) -> bytes:
    limit = DESCRIPTION_LIMIT_BYTES if name.endswith((".json", ".xml")) else _most_bytes(path)
    content = read_member(path, f"{FOLDER}/{name}", limit)
    if content is None or hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{name} is missing or does not match its checksum")
    return content


def _most_bytes(path: Path) -> int:
    """What an engine's form of the weights can take: transformed kernels have four times the numbers."""
    try:
        size = member_size(path, WEIGHTS_FILE)
    except FileNotFoundError:
        size = 0
    return min(8 * size + SLACK_BYTES, MOST_BYTES)


def read_member(path: Path, name: str, limit: int = MANIFEST_LIMIT_BYTES) -> bytes | None:
    """The bytes of one file of the bundle at `path` (folder or `.zip`); None when it is not there.

    Raises BundleError when it has more than `limit` bytes, or is no file.
    """
    try:
        return member_bytes(path, name, limit)
    except OSError:
        return None
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError) as error:
        raise BundleError(f"{path} cannot be read as a bundle: {error}") from error
