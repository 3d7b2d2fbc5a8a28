"""Damaged, foreign and hostile checkpoints and bundles: refused with a typed error, never executed.

    OMP_NUM_THREADS=1 python benchmarks/mutants.py --mutants 10000 --json mutants.json

Each mutant is a valid checkpoint or bundle with one change that knows the format: bytes cut, flipped, added;
the safetensors header's length, names, types, shapes and offsets; values, keys and nesting of the JSON; files
of other kinds, pickles with a payload among them. Half of them are vouched for: their checksums are made
right again, as somebody hostile would.

What must hold: loading ends in an InceptionError of one line, or in values of exactly the expected shapes and
types (for unvouched mutants: the original values); no payload runs; the process's memory never grows by more
than twice the file and a fixed allowance.
"""

import argparse
import base64
import hashlib
import io
import json
import pickle
import random
import shutil
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inception.data.preprocess import Preprocess
from inception.errors import InceptionError
from inception.nets.registry import build_network
from inception.train.checkpoint import list_checkpoints, load_checkpoint, read_config_of, save_checkpoint
from inception.train.config import TrainConfig
from inception.train.optimizer import AveragedWeights
from inception.train.ranks import ALONE
from inception.train.state import Progress, TrainingState
from inception.weights.bundle import Bundle, load_bundle, save_bundle

ALLOWANCE_BYTES = 32 << 20
"""Of memory beyond twice the file: JSON of up to 4 MiB or 200,000 values, the network that is filled."""
FINGERPRINT = "0" * 64
CHECKPOINT, BUNDLE = "checkpoint", "bundle"


class Payload:
    """What a pickle would run: it leaves a file behind."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.canary, "w"))


def small_state() -> TrainingState:
    """A convolution, a batch norm and a classifier with their optimiser, after a step."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 4))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    average = AveragedWeights(network, 0.9)
    state = TrainingState(network, optimizer, average, Progress(), torch.device("cpu"), ALONE)
    network(torch.randn(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    average.update()
    state.progress.step = state.progress.batch = 1
    state.progress.unreadable = {"a.png": "empty"}
    return state


def write_originals(folder: Path) -> dict[str, Path]:
    """A checkpoint folder and a bundle folder, both valid."""
    state = small_state()
    save_checkpoint(folder / CHECKPOINT, state, TrainConfig(data="x").to_dict(), FINGERPRINT, 2)
    torch.manual_seed(0)
    network = build_network("lenet5", num_classes=3)
    labels, preprocess = ("a", "b", "c"), Preprocess(height=32, width=32)
    save_bundle(
        Bundle("lenet5", network.arguments, labels, preprocess, network.state_dict()), folder / BUNDLE
    )
    return {CHECKPOINT: folder / CHECKPOINT, BUNDLE: folder / BUNDLE}


# Values that a field may be replaced by: other types, edges, and what breaks naive readers.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e308, -1e308,
    "", "a", "\x00", "../../../etc/passwd", "é" * 50, "\ud800", [], {}, [[]], [0], [-1], [2**62, 4], [1] * 70,
    {"a": {}}, {"__class__": "x"}, float("nan"), float("inf"), ["F32"], "F64", "I64", "BF16", "F8_E4M3", "U8",
)  # fmt: skip


def places(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, as a tuple of keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in ((*prefix, key), *places(inner, (*prefix, key)))]


def change_json(value: Any, rng: random.Random) -> Any:
    """One change to a JSON value: another value, a key lost, added or renamed, or deep nesting."""
    *above, key = rng.choice(places(value))
    parent = value
    for step in above:
        parent = parent[step]
    kind = rng.randrange(8)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[f"{key}{rng.choice(['_', '.0', ' ', 'x' * 300])}"] = parent.pop(key)
    elif kind == 2 and isinstance(parent, dict):
        parent[rng.choice(["extra", "", "__metadata__", "network.0.weight", "random.cpu.7"])] = rng.choice(
            VALUES
        )
    elif kind == 3:
        nested: Any = 0
        for _ in range(rng.choice([5, 200, 900])):
            nested = [nested] if rng.random() < 0.5 else {"a": nested}
        parent[key] = nested
    elif kind == 4 and isinstance(parent[key], int | float):
        parent[key] = parent[key] + rng.choice([1, -1, 1000, -(10**6), 0.5])
    else:
        parent[key] = rng.choice(VALUES)
    return value


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """One change to bytes: cut, flipped, added, overwritten, repeated."""
    kind = rng.randrange(7)
    place = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 600))
    if kind == 0:
        return data[:place]
    if kind <= 2:
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 1, 3, 30])):
            changed[rng.randrange(len(data)) if rng.random() < 0.5 else place] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == 3:
        return data + rng.randbytes(rng.choice([1, 8, 1000]))
    if kind == 4:
        length = rng.choice([1, 8, 100])
        return data[:place] + bytes(length) + data[place + length :]
    if kind == 5:
        return data[:place] + rng.randbytes(rng.choice([1, 8])) + data[place:]
    return data[:place] + data[place + rng.choice([1, 8, 100]) :]


def change_header(data: bytes, rng: random.Random) -> bytes:
    """One change to a safetensors file's header: its length, or the JSON in it."""
    size = struct.unpack("<Q", data[:8])[0]
    if rng.random() < 0.2:
        wrong = rng.choice([0, 1, size - 1, size + 1, len(data), 10**8, 2**31, 2**63, 2**64 - 1])
        return struct.pack("<Q", wrong) + data[8:]
    header = json.loads(data[8 : 8 + size])
    tensors = [name for name in header if name != "__metadata__"]
    if rng.random() < 0.3:
        one, other = rng.choice(tensors), rng.choice(tensors)
        header[one], header[other] = header[other], header[one]
    elif rng.random() < 0.3:
        name = rng.choice(tensors)
        low, high = header[name]["data_offsets"]
        header[name]["data_offsets"] = [
            low + rng.choice([0, -4, 4, 10**9]),
            high + rng.choice([4, -4, 10**12]),
        ]
    else:
        header = change_json(header, rng)
    text = json.dumps(header).encode(errors="surrogatepass")
    if rng.random() < 0.1:  # a key twice
        text = text[:-1] + b"," + json.dumps({tensors[0]: header.get(tensors[0])}).encode()[1:]
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def foreign(rng: random.Random, canary: str) -> bytes:
    """A file of another kind; the pickles among them would leave `canary`."""
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(3), "b": Payload(canary)}, stream)
    return rng.choice(
        [
            b"",
            b"\0" * 4096,
            pickle.dumps(Payload(canary)),
            stream.getvalue(),
            b"{" * 100_000,
            b"[" * 100_000,
            b'{"a":' + b"9" * 100_000 + b"}",
            b'"' + b"a" * (5 << 20) + b'"',
            b'"' + "\U0001f600".encode() + b"a" * (3 << 20) + b'"',
            b"[" + b'"ab",' * 150_000 + b"0]",
            b"[" + b"[]," * 1_000_000 + b"[]]",
            b"\x89PNG\r\n\x1a\n" + rng.randbytes(100),
            b"\x7fELF" + rng.randbytes(500),
            base64.b64decode("H4sIAAAAAAAAA+3BAQ0AAADCoPdPbQ8HFAAAAAAAAAAAAAAAAAAAAA=="),
            rng.randbytes(3000),
            b"{}",
            b"null",
            b"[]",
        ]
    )


def mutate(kind: str, folder: Path, rng: random.Random, canary: str) -> tuple[str, bool]:
    """Change the valid checkpoint or bundle in `folder`; what was changed, and whether it is vouched for."""
    if kind == CHECKPOINT:
        text = list_checkpoints(folder)[0]
        weights = text.with_suffix(".safetensors")
    else:
        text, weights = folder / "bundle.json", folder / "model.safetensors"
    content = json.loads(text.read_bytes())
    change = rng.choice(
        ["weights", "header", "header", "json", "json", "json bytes", "foreign", "foreign json"]
    )
    if change in ("weights", "header"):
        data = weights.read_bytes()
        weights.write_bytes((change_bytes if change == "weights" else change_header)(data, rng))
    elif change == "foreign":
        weights.write_bytes(foreign(rng, canary))
    elif change == "json bytes":
        text.write_bytes(change_bytes(text.read_bytes(), rng))
        return change, False
    elif change == "foreign json":
        text.write_bytes(foreign(rng, canary))
        return change, False
    else:
        content = change_json(content, rng)
    vouched = rng.random() < 0.5
    data = weights.read_bytes()
    if vouched and isinstance(content, dict):
        if kind == BUNDLE:
            content["weights_sha256"] = hashlib.sha256(data).hexdigest()
        else:
            content |= {"tensors_sha256": hashlib.sha256(data).hexdigest(), "tensors_bytes": len(data)}
            content.pop("sha256", None)
            canonical = json.dumps(content, sort_keys=True).encode(errors="surrogatepass")
            content["sha256"] = hashlib.sha256(canonical).hexdigest()
    text.write_bytes(json.dumps(content).encode(errors="surrogatepass"))
    return change, vouched


def load(kind: str, folder: Path) -> dict[str, torch.Tensor]:
    """Everything that reading a checkpoint or a bundle gives; raises what it raises."""
    if kind == BUNDLE:
        return dict(load_bundle(folder).build().state_dict())
    TrainConfig.from_dict(read_config_of(folder))
    state = small_state()
    load_checkpoint(folder, state, FINGERPRINT)
    memory = {
        f"optimizer.{i}.{k}": v
        for i, s in state.optimizer.state_dict()["state"].items()
        for k, v in s.items()
    }
    return {
        **state.network.state_dict(),
        **{f"average.{k}": v for k, v in state.average.values.items()},
        **memory,
    }


def memory_growth(work: Callable[[], Any]) -> int:
    """Bytes by which the process's memory peaked above its size before `work` (0 where Linux is not)."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        work()
        return 0

    def kib(name: str) -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1])

    clear.write_text("5")  # the peak is counted anew
    before = kib("VmRSS")
    try:
        work()
    finally:
        grown = (kib("VmHWM") - before) * 1024
    return grown


@dataclass
class Outcome:
    """What became of the mutants; `wrong` lists those that broke a promise."""

    refused: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    largest_growth: int = 0


def try_mutant(
    kind: str, folder: Path, label: str, vouched: bool, good: dict[str, torch.Tensor], outcome: Outcome
) -> None:
    """Load a mutant and note what happened."""
    found: dict[str, torch.Tensor] = {}
    size = sum(path.stat().st_size for path in folder.iterdir())

    def work() -> None:
        try:
            found.update(load(kind, folder))
            outcome.accepted[label] += 1
        except InceptionError as error:
            outcome.refused[type(error).__name__] += 1
            if "\n" in str(error) or len(str(error)) > 1000:
                outcome.wrong.append(f"{label}: message {str(error)[:200]!r}")
        except BaseException as error:
            outcome.wrong.append(f"{label}: {type(error).__name__}: {str(error)[:200]}")

    grown = memory_growth(work)
    outcome.largest_growth = max(outcome.largest_growth, grown)
    if grown > 2 * size + ALLOWANCE_BYTES:
        outcome.wrong.append(f"{label}: memory grew by {grown} bytes for {size}")
    if found and {n: (v.shape, v.dtype) for n, v in found.items()} != {
        n: (v.shape, v.dtype) for n, v in good.items()
    }:
        outcome.wrong.append(f"{label}: other shapes or types were accepted")
    elif found and not vouched and not all(torch.equal(found[name], value) for name, value in good.items()):
        outcome.wrong.append(f"{label}: damaged values were accepted")


def run(mutants: int, seed: int, folder: Path) -> Outcome:
    """Make and load so many mutants below `folder`."""
    rng, outcome = random.Random(seed), Outcome()
    originals, canary = write_originals(folder / "good"), folder / "canary"
    good = {kind: load(kind, path) for kind, path in originals.items()}
    for number in range(mutants):
        kind = rng.choice([CHECKPOINT, BUNDLE])
        place = folder / f"mutant-{number}"
        shutil.copytree(originals[kind], place)
        change, vouched = mutate(kind, place, rng, str(canary))
        label = f"{kind}, {change}, {'vouched' if vouched else 'plain'}"
        before = len(outcome.wrong)
        try_mutant(kind, place, label, vouched, good[kind], outcome)
        if kind == BUNDLE and rng.random() < 0.3:
            packed = place.with_suffix(".zip")
            with zipfile.ZipFile(
                packed, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
            ) as archive:
                for file in place.iterdir():
                    archive.write(file, file.name)
            packed.write_bytes(change_bytes(packed.read_bytes(), rng))
            try:
                load_bundle(packed).build()
            except InceptionError as error:
                outcome.refused[f"zip {type(error).__name__}"] += 1
            except BaseException as error:
                outcome.wrong.append(f"zip: {type(error).__name__}: {error}")
            packed.unlink()
        if canary.exists():
            outcome.wrong.append(f"{label}: a payload was executed")
            canary.unlink()
        if len(outcome.wrong) > before:
            outcome.wrong[-1] += f" (seed {seed}, mutant {number})"
        shutil.rmtree(place)
    return outcome


def main() -> None:
    """Run, print the counts, write the JSON; exits with 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        outcome = run(options.mutants, options.seed, Path(folder))
    content = {"mutants": options.mutants, "seed": options.seed, "torch": torch.__version__, **vars(outcome)}
    content |= {"seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(content, indent=2))
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
