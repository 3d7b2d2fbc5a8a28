"""Answers for very many images, written in whole parts: a job that was stopped goes on with the next part.

The parts lie in `<output>.parts/`, one file of JSON lines each, written beside its place and renamed. What a
part holds depends on the job alone, so a part that two workers write twice is still there once. When all are
there, they are joined to the table that was asked for, inputs without an answer in a table of their own.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from inception.errors import UsageError
from inception.files import atomic_write_text, held, make_folder, remove_leftovers
from inception.runtime.answering import Answering
from inception.runtime.inputs import Item
from inception.runtime.loading import load
from inception.runtime.plan import FOLDER, PLAN_FILE, read_member
from inception.runtime.tables import answers_table, check_table, errors_path, errors_table
from inception.weights.manifest import LABELS_SCHEMA, read_manifest

PART_IMAGES = 1024
"""About so many answers are lost when a job is killed."""

_JOB_FILE = "job.json"


@dataclass(frozen=True)
class Job:
    """What is asked about what, and where the answers go.

    Attributes:
        bundle: path of the bundle.
        items: the images, in the order of the answers.
        output: `.jsonl`, `.csv` or `.parquet`.
        top, unknown, batch_size: as for `Answering.predict_stream`.
        device, precision: as for `load`.
        part_size: images of a part, rounded up to whole batches.
    """

    bundle: str
    items: tuple[Item, ...]
    output: Path
    top: int = 5
    unknown: bool = False
    batch_size: int = 32
    device: str = "auto"
    precision: str = "float32"
    part_size: int = PART_IMAGES

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return self.output.with_name(f"{self.output.name}.parts")

    @property
    def part_images(self) -> int:
        """Images of a part: whole batches, so that batches are the same wherever a job goes on."""
        return -(-self.part_size // self.batch_size) * self.batch_size

    @property
    def parts(self) -> int:
        """How many there are."""
        return -(-len(self.items) // self.part_images)

    def part_items(self, part: int) -> Sequence[Item]:
        """The images of a part."""
        return self.items[part * self.part_images : (part + 1) * self.part_images]

    def part_path(self, part: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{part:06d}.jsonl"

    def manifest(self) -> dict[str, Any]:
        """The bundle's `bundle.json`. Raises BundleError."""
        return read_manifest(Path(self.bundle))

    def digest(self, manifest: Mapping[str, Any]) -> str:
        """SHA-256 of all that the answers depend on, except the images' content; `manifest` as of above."""
        plan = read_member(Path(self.bundle), f"{FOLDER}/{PLAN_FILE}") or b""
        options = [self.top, self.unknown, self.batch_size, self.device, self.precision, self.part_size]
        digest = hashlib.sha256(
            json.dumps(options).encode() + b"\0" + json.dumps(manifest).encode() + b"\0" + plan
        )
        for name, _ in self.items:
            digest.update(name.encode(errors="surrogateescape") + b"\0")
        return digest.hexdigest()


@dataclass(frozen=True)
class Answered:
    """What a job left.

    Attributes:
        output, errors: the tables; `errors` is None when every image was answered.
        images, failed: how many, failed ones among them.
        kept: parts that an earlier run had finished.
        seconds: of this run.
        computed: images that this run looked at.
    """

    output: Path
    errors: Path | None
    images: int
    failed: int
    kept: int
    seconds: float
    computed: int


PartDone = Callable[[int, int], None]
"""Called with a part and its images."""
Engine = Callable[[Job, Sequence[int]], Iterable[int]]
"""Writes the given parts of a job, in any order, and gives the number of each when it is written."""


def answer_here(job: Job, parts: Sequence[int]) -> Iterator[int]:
    """The engine of one machine: this process."""
    yield from answer_parts(job, load(job.bundle, job.device, job.precision), parts)


def answer_parts(job: Job, classifier: Answering, parts: Sequence[int]) -> Iterator[int]:
    """Write parts of a job one after another, decoding the next one's images ahead."""
    items = chain.from_iterable(job.part_items(part) for part in parts)
    answers = classifier.predict_stream(items, job.top, job.unknown, job.batch_size)
    for part in parts:
        rows = [answer.to_dict() for answer in islice(answers, len(job.part_items(part)))]
        atomic_write_text(job.part_path(part), "".join(json.dumps(row) + "\n" for row in rows))
        yield part


def run_job(job: Job, engine: Engine = answer_here, progress: PartDone | None = None) -> Answered:
    """Answer what is not answered yet, and leave the table when all is.

    Args:
        job: the same one again goes on where it was stopped.
        engine: what computes.
        progress: called with each part that is there, and its images.

    Raises:
        UsageError: if the output exists, or its parts are of another job or being written.
        WriteError: if something cannot be written.
    """
    check_table(job.output)
    if not job.items:
        raise UsageError("there are no images to answer for")
    manifest = job.manifest()
    if manifest["schema"] == LABELS_SCHEMA and job.output.suffix.lower() != ".jsonl":
        raise UsageError(f"{job.bundle} gives several labels an image: write them to a .jsonl file")
    digest, started = job.digest(manifest), time.monotonic()
    _refuse_other(job, digest)
    make_folder(job.folder)
    with held(job.folder, "another process is writing to"):
        remove_leftovers(job.output)
        remove_leftovers(errors_path(job.output))
        atomic_write_text(job.folder / _JOB_FILE, json.dumps({"digest": digest, "parts": job.parts}) + "\n")
        missing = [part for part in range(job.parts) if not job.part_path(part).is_file()]
        kept = job.parts - len(missing)
        done = chain(sorted(set(range(job.parts)) - set(missing)), engine(job, missing) if missing else ())
        for part in done:
            if progress is not None:
                progress(part, len(job.part_items(part)))
        failed = _join(job, len(manifest["labels"]))
        seconds = time.monotonic() - started
    shutil.rmtree(job.folder)
    computed = sum(len(job.part_items(part)) for part in missing)
    errors = errors_path(job.output) if failed else None
    return Answered(job.output, errors, len(job.items), failed, kept, seconds, computed)


def _refuse_other(job: Job, digest: str) -> None:
    if not job.folder.exists():
        if job.output.exists():
            raise UsageError(f"{job.output} exists already: remove it, or choose another --output")
        return
    try:
        found = json.loads((job.folder / _JOB_FILE).read_bytes())["digest"]
    except (OSError, ValueError, LookupError, TypeError):
        found = ""
    # A folder without answers is what a run leaves that failed before its first part.
    if found != digest and any(job.folder.glob("part-*")):
        raise UsageError(
            f"{job.folder} holds answers of another job (other bundle, options or images): "
            "remove it, or choose another --output"
        )


def _join(job: Job, labels: int) -> int:
    """Write the tables of answers among so many labels; returns how many images have no answer."""
    errors = errors_path(job.output)
    failed = 0
    with answers_table(job.output, min(job.top, labels)) as add:
        for row in _rows(job):
            if "error" in row:
                failed += 1
            else:
                add(row)
    if failed:
        with errors_table(errors) as add:
            for row in _rows(job):
                if "error" in row:
                    add(row)
    else:
        errors.unlink(missing_ok=True)
    return failed


def _rows(job: Job) -> Iterator[dict[str, Any]]:
    for part in range(job.parts):
        with job.part_path(part).open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)
