"""The models of a server by name and version, started, watched and replaced.

Each is served from a private copy of its bundle: what happens to the folder later, even a half-written new
version, cannot disturb a model that answers.
"""

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inception.errors import BundleError, InceptionError, UsageError
from inception.runtime.plan import FOLDER, PLAN_FILE, read_member
from inception.serve.engine import Engine
from inception.serve.logs import log_event
from inception.serve.metrics import Metrics
from inception.serve.settings import RequestError, Settings, unavailable
from inception.weights.manifest import MANIFEST_FILE

_VERSION_DIGITS = 12
_VAGUE_NAMES = ("bundle", "runs", "")


@dataclass(frozen=True)
class Source:
    """Where a model's bundles appear: `name` for clients, `path` on disk."""

    name: str
    path: Path

    @classmethod
    def parse(cls, text: str) -> "Source":
        """`NAME=PATH`, or `PATH`, whose folder gives the name (`runs/roses/bundle` is `roses`).

        Raises UsageError for a name that would not fit in a URL.
        """
        name, separator, path = text.partition("=")
        if separator and "/" not in name:
            source = cls(name, Path(path))
        else:
            parts = [part for part in Path(text).absolute().parts if part not in _VAGUE_NAMES]
            source = cls(parts[-1].removesuffix(".zip"), Path(text))
        if not source.name or not all(c.isascii() and (c.isalnum() or c in "._-") for c in source.name):
            raise UsageError(
                f"{source.name!r} cannot be a model's name: letters, digits, '.', '_' and '-' only; "
                "name it with NAME=BUNDLE"
            )
        return source

    def stamp(self) -> tuple[int, ...] | None:
        """Changes with every file of the bundle that does; None while there is none.

        Copying tools write the manifest before the weights, so that it alone does not tell.
        """
        try:
            if not self.path.is_dir():
                found = [self.path.stat()]
            elif not (self.path / MANIFEST_FILE).is_file():
                return None
            else:
                found = [file.stat() for file in sorted(self.path.rglob("*")) if file.is_file()]
        except OSError:
            return None
        return tuple(part for one in found for part in (one.st_ino, one.st_size, one.st_mtime_ns))

    def copy_to(self, folder: Path) -> Path:
        """A private copy. Raises BundleError or UsageError when there is nothing to copy."""
        target = folder / (f"{self.name}.zip" if self.path.is_file() else self.name)
        try:
            if self.path.is_dir():
                if not (self.path / MANIFEST_FILE).is_file():
                    raise BundleError(f"{self.path} is not a bundle: {MANIFEST_FILE} is missing")
                shutil.copytree(self.path, target)
            elif self.path.is_file():
                shutil.copyfile(self.path, target)
            else:
                raise UsageError(f"there is no bundle at {self.path}")
        except (OSError, shutil.Error) as error:
            raise BundleError(f"{self.path} cannot be copied: {error}") from error
        return target


def version_of(bundle: Path) -> str:
    """The first digits of the SHA-256 of a bundle's manifest, which names its weights' checksum, and of the
    plan of an optimised one, which names its engine's files.
    """
    content = [read_member(bundle, name) or b"" for name in (MANIFEST_FILE, f"{FOLDER}/{PLAN_FILE}")]
    return hashlib.sha256(b"".join(content)).hexdigest()[:_VERSION_DIGITS]


class Models:
    """All models of a server."""

    def __init__(self, sources: Sequence[Source], settings: Settings, metrics: Metrics) -> None:
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            raise UsageError("two bundles have the same name; tell them apart with NAME=BUNDLE")
        self.sources = {source.name: source for source in sources}
        self._settings, self._metrics = settings, metrics
        self._engines: dict[str, list[Engine]] = {name: [] for name in names}
        self._stamps: dict[str, tuple[int, ...] | None] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="inception-serve-")
        self._reloading = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self.draining = False

    @property
    def default(self) -> str:
        """The model of requests that name none: the first."""
        return next(iter(self.sources))

    @property
    def ready(self) -> bool:
        """Whether every model answers and the server is not about to stop."""
        return not self.draining and all(engines and engines[0].ready for engines in self._engines.values())

    def engine(self, name: str | None, version: str | None = None) -> Engine:
        """The engine of a model, of its newest version unless one is named.

        Raises a RequestError: 404 for what does not exist, 503 for what has not started yet.
        """
        name = self.default if name is None else name
        engines = self._engines.get(name)
        if engines is None:
            raise RequestError(404, f"there is no model of that name; there are: {', '.join(self.sources)}")
        if not engines:
            raise unavailable(f"the model {name} is starting", 5)
        if version is None:
            return engines[0]
        for engine in engines:
            if engine.version == version:
                return engine
        versions = ", ".join(self.versions(name))
        raise RequestError(404, f"the model {name} has no such version; it has: {versions}")

    def versions(self, name: str) -> list[str]:
        """Versions that answer, newest first; more than one only while the older finishes its work."""
        return [engine.version for engine in self._engines[name]]

    async def start(self) -> None:
        """Start all models, one after the other. Raises BundleError or UsageError."""
        async with self._reloading:
            for source in self.sources.values():
                await self._load(source)

    async def stop(self) -> None:
        """Finish all work, end all inference processes, remove the private copies."""
        engines = [engine for engines in self._engines.values() for engine in engines]
        await asyncio.gather(*(engine.stop() for engine in engines), *self._retiring)
        self._folder.cleanup()

    async def reload(self, only_changed: bool = False) -> None:
        """Look for new versions; take what passes verification, keep what answers where it does not."""
        async with self._reloading:
            for source in self.sources.values():
                stamp = source.stamp()
                if only_changed and stamp in (None, self._stamps.get(source.name)):
                    continue
                try:
                    outcome = "ok" if await self._load(source) else "unchanged"
                except InceptionError as error:
                    # Not tried again until it changes again, so that a bad bundle costs one attempt.
                    self._stamps[source.name] = stamp
                    outcome = "failed"
                    log_event(
                        "new version refused, the old one goes on",
                        "error",
                        model=source.name,
                        error=str(error),
                    )
                self._metrics.reloads.labels(source.name, outcome).inc()

    async def watch(self) -> None:
        """Look for new versions for ever, every `watch_seconds`."""
        while True:
            await asyncio.sleep(self._settings.watch_seconds)
            await self.reload(only_changed=True)

    async def _load(self, source: Source) -> bool:
        """Start what is at `source` and put it in front; False when that is what answers already."""
        stamp = source.stamp()
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        taken = False
        try:
            bundle = await asyncio.to_thread(source.copy_to, folder)
            version = await asyncio.to_thread(version_of, bundle)
            engines = self._engines[source.name]
            if engines and engines[0].version == version:
                self._stamps[source.name] = stamp
                return False
            engine = Engine(source.name, version, bundle, self._settings, self._metrics)
            try:
                await engine.start()
            except InceptionError as error:
                raise type(error)(str(error).replace(str(bundle), str(source.path))) from error
            taken = True
        finally:
            if not taken:
                shutil.rmtree(folder, ignore_errors=True)
        self._stamps[source.name] = stamp
        engines.insert(0, engine)
        log_event("model ready", model=source.name, version=version)
        for old in engines[1:]:
            task = asyncio.create_task(self._retire(source.name, old))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        return True

    async def _retire(self, name: str, engine: Engine) -> None:
        """Let an older version finish what it has, then end it."""
        await engine.stop()
        if engine in self._engines[name]:
            self._engines[name].remove(engine)
        shutil.rmtree(engine.bundle.parent, ignore_errors=True)

    def describe(self) -> list[dict[str, Any]]:
        """What the page and the client need to know of every model, JSON-safe."""
        described = []
        for name, engines in self._engines.items():
            entry: dict[str, Any] = {"name": name, "ready": bool(engines and engines[0].ready)}
            if engines:
                facts = engines[0].facts
                entry |= {
                    "version": engines[0].version,
                    "network": facts["network"],
                    "labels": len(facts["labels"]),
                    "shape": facts["shape"],
                    "auxiliary": [{"head": head, "stage": stage} for head, stage in facts["heads"].items()],
                    "unknown": facts["unknown"],
                    "explain": facts["explain"],
                }
            described.append(entry)
        return described
