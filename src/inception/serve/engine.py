"""One model behind a bounded queue: images of all requests are computed together, in batches.

A batch is whatever waits when the inference process is free, up to `max_batch`: nothing ever waits for
company. When a full batch waits already, it is sent ahead, to be decoded while the one before is computed.
Explanations wait in the same queue, but each is a batch of its own, few may wait, and images go first for a
while. So do images that take long to decode, once the inference process has told so from their headers.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from inception.errors import InceptionError
from inception.serve.logs import log_event
from inception.serve.metrics import Metrics
from inception.serve.process import InferenceProcess, ProcessLostError
from inception.serve.settings import (
    BATCH_PIXELS,
    MAX_SCANS,
    REQUESTS_SHARE,
    SLOW_PIXELS,
    RequestError,
    Settings,
    unavailable,
)

NO_GRADIENTS = "its engine has no gradients, or the server was started with --no-explain"
_MAX_AHEAD = 2
_SLOW_YIELDS_SECONDS = 1.0
"""So long what takes long lets images that came later go first: it takes as long as dozens of them."""
_MAX_PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class Answered:
    """What came back for one image: JSON-safe values, raw rows, and where its time went."""

    values: dict[str, Any]
    rows: bytes
    timing: dict[str, float]


@dataclass(eq=False)
class Together:
    """The images of one request: where their answers go, and what decoding those costs that cost much."""

    futures: list[asyncio.Future[Answered]] = field(default_factory=list)
    pixels: int = 0


def fail(future: asyncio.Future[Answered], error: Exception) -> None:
    """Give an image this error instead of an answer, unless it has one or nobody waits."""
    if not future.done():
        future.set_exception(error)


@dataclass(eq=False)
class Item:
    """One image in the queue.

    Attributes:
        ask: a JSON-safe `answers.Ask`.
        payload: its bytes.
        deadline: when it is too late to compute it.
        future: where its answer goes.
        request: what it has come with, and `place` its own place there.
        pixels: what decoding it costs (see `costs`), once it is known to be more than `LIGHT_PIXELS`.
    """

    ask: dict[str, Any]
    payload: bytes
    deadline: float
    future: asyncio.Future[Answered]
    request: Together
    place: int
    pixels: int = 0
    queued: float = field(default_factory=time.monotonic)

    @property
    def explains(self) -> bool:
        """Whether an explanation is wanted, which takes far longer than an answer."""
        return bool(self.ask.get("explain"))

    @property
    def alone(self) -> bool:
        """Whether it takes so long that it is a batch of its own."""
        return self.explains or self.pixels > SLOW_PIXELS


class Engine:
    """A model that answers, or is about to.

    Attributes:
        name, version: what clients call it.
        bundle: the private copy it is loaded from.
        facts: what its inference process says of it; empty until the first start.
        ready: whether it would answer now.
    """

    def __init__(self, name: str, version: str, bundle: Path, settings: Settings, metrics: Metrics) -> None:
        self.name, self.version = name, version
        self.facts: dict[str, Any] = {}
        self.bundle, self._settings, self._metrics = bundle, settings, metrics.of_model(name)
        self._queue: deque[Item] = deque()
        self._sent: deque[list[Item]] = deque()
        self._wake = asyncio.Event()
        self._process: InferenceProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._seconds_per_image = 0.0
        self._batches = 0
        self._broken = False
        self._was_alone = False

    @property
    def ready(self) -> bool:
        """Whether its inference process is warm."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Process id of the inference process, while there is one."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start answering. Raises BundleError or UsageError when the bundle cannot be used."""
        self._process = await InferenceProcess.start(str(self.bundle), self._settings)
        self.facts = self._process.facts
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Answer what is queued, then end the inference process."""
        while self._queue or self._sent:
            await asyncio.sleep(0.02)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._process is not None:
            process, self._process = self._process, None
            await process.end()

    def check_room(self, count: int = 1) -> None:
        """Raise a 503 RequestError when `count` more images could not be answered in time."""
        if self._broken:
            raise unavailable(f"the model {self.name} cannot be started; its log says why", 30)
        if len(self._queue) + count > self._settings.max_queue:
            raise unavailable("the server is busy: its queue is full; try again later", self._retry_seconds())
        # An empty queue is always open, or one slow batch would close it for ever.
        if len(self._queue) * self._seconds_per_image > self._settings.deadline_seconds:
            raise unavailable("the server is busy: the wait would be too long", self._retry_seconds())

    def check_explanations(self) -> None:
        """Raise a RequestError when an explanation cannot be had: 501 for ever, 503 for now."""
        if not self.facts["explain"]:
            raise RequestError(
                501, f"the answers of the model {self.name} cannot be explained: {NO_GRADIENTS}"
            )
        waiting = [*self._queue, *(item for batch in self._sent for item in batch)]
        if sum(item.explains for item in waiting) >= self._settings.max_explanations:
            raise unavailable("the server is busy: other explanations wait already; try again later")

    def submit(self, asks: Sequence[tuple[dict[str, Any], bytes]]) -> list[asyncio.Future[Answered]]:
        """Queue the images of one request, all or none.

        Raises a 503 RequestError when there is no room. A future may raise one too: when its deadline passes,
        or the inference process is lost. Cancel the futures of a client that has gone.
        """
        self.check_room(len(asks))
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + self._settings.deadline_seconds
        request = Together([loop.create_future() for _ in asks])
        for place, ((ask, payload), future) in enumerate(zip(asks, request.futures, strict=True)):
            self._queue.append(Item(ask, payload, deadline, future, request, place))
        self._metrics.queue.set(len(self._queue))
        self._wake.set()
        return request.futures

    def _retry_seconds(self) -> int:
        return math.ceil(len(self._queue) * self._seconds_per_image)

    async def _run(self) -> None:
        pause = 0.0
        while True:
            if self._process is None:
                pause = await self._restart(pause)
                continue
            try:
                await self._serve(self._process)
            except ProcessLostError as error:
                self._lose(error)

    async def _restart(self, pause: float) -> float:
        """Start a new inference process; on failure wait, each time twice as long."""
        expiry = asyncio.create_task(self._expire())
        try:
            self._process = await InferenceProcess.start(str(self.bundle), self._settings)
        except InceptionError as error:
            log_event("restart failed", "error", model=self.name, error=str(error))
            self._broken, pause = True, min(max(0.5, 2 * pause), _MAX_PAUSE_SECONDS)
            await asyncio.sleep(pause)
            return pause
        finally:
            expiry.cancel()
        self._broken = False
        log_event("inference process is back", model=self.name, pid=self.pid)
        return 0.0

    async def _expire(self) -> None:
        """While nothing is computed, tell those whose time is up."""
        while True:
            await asyncio.sleep(0.1)
            self._drop_expired()

    def _lose(self, error: ProcessLostError) -> None:
        """After the end of the process: its current batch fails, the one sent ahead is queued again."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
        self._metrics.restarts.inc()
        log_event("inference process lost", "error", model=self.name, error=str(error))
        if self._sent:
            for item in self._sent.popleft():
                fail(
                    item.future,
                    unavailable("the inference process was lost while it had this image; try again"),
                )
        while self._sent:
            self._queue.extendleft(reversed(self._sent.pop()))

    async def _serve(self, process: InferenceProcess) -> None:
        """Send and receive batches until the process is lost."""
        answer: asyncio.Task[Any] = asyncio.create_task(process.receive())
        wake: asyncio.Task[Any] | None = None
        started = time.monotonic()
        try:
            while True:
                if not self._sent:
                    started = time.monotonic()
                self._send_batches(process)
                self._wake.clear()
                wake = asyncio.create_task(self._wake.wait())
                limit = started + self._settings.batch_seconds if self._sent else math.inf
                done, _ = await asyncio.wait(
                    {answer, wake},
                    timeout=self._seconds_until(limit),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                wake.cancel()
                if answer in done:
                    message, rows = answer.result()
                    self._deliver(message, rows, started)
                    answer = asyncio.create_task(process.receive())
                    started = time.monotonic()
                elif time.monotonic() >= limit:
                    raise ProcessLostError(f"no answer within {self._settings.batch_seconds:g} seconds")
        finally:
            answer.cancel()
            if wake is not None:
                wake.cancel()

    def _seconds_until(self, limit: float) -> float | None:
        """Time to `limit` or to the first deadline in the queue, whichever comes first; None: neither."""
        first = min((item.deadline for item in self._queue), default=math.inf)
        moment = min(limit, first)
        return None if moment == math.inf else max(moment - time.monotonic(), 0.0)

    def _send_batches(self, process: InferenceProcess) -> None:
        self._drop_expired()
        size = self._settings.max_batch
        while self._queue:
            # Behind what takes long nothing is sent ahead, nor is that itself: it might come before images.
            if self._sent and not self._may_send_ahead(size):
                break
            batch = self._next_batch(size, images_only=bool(self._sent))
            if not batch:
                break
            self._batches += 1
            message = {"batch": self._batches, "asks": [item.ask for item in batch]}
            process.send(message, [item.payload for item in batch])
            self._sent.append(batch)
            self._metrics.batch.observe(len(batch))
        self._metrics.queue.set(len(self._queue))

    def _may_send_ahead(self, size: int) -> bool:
        return len(self._sent) < _MAX_AHEAD and len(self._queue) >= size and not self._sent[-1][0].alone

    def _next_batch(self, size: int, images_only: bool) -> list[Item]:
        """The images whose turn it is, up to `size`; or what takes long, alone.

        Of a request with many images those beyond a batch wait until other requests have had their turn, and
        so do large ones beyond the first.
        """
        images = [item for item in self._queue if not item.alone]
        images = _fitting(sorted(images, key=lambda item: item.place // (1 if item.pixels else size))[:size])
        slow = None
        if not images_only:
            waiting = (item for item in self._queue if item.alone)
            slow = min(waiting, key=lambda item: item.queued, default=None)
        batch = images
        if slow is not None:
            yields = self._was_alone or time.monotonic() - slow.queued < _SLOW_YIELDS_SECONDS
            batch = images if images and yields else [slow]
        self._was_alone = bool(batch) and batch[0].alone
        for item in batch:
            self._queue.remove(item)
        return batch

    def _weigh(self, item: Item, pixels: int) -> None:
        """Queue an image again now that its cost is known, if its request and the queue may have as much."""
        item.pixels, item.ask = pixels, {**item.ask, "weighed": True}
        item.request.pixels += pixels
        waiting = sum(other.pixels for other in self._queue if other.pixels > SLOW_PIXELS)
        most = REQUESTS_SHARE * MAX_SCANS * self._settings.max_pixels
        if (together := item.request.pixels) > most:
            text = f"the images of the request have {together:,} pixels to read, over the limit of {most:,}"
            for future in item.request.futures:
                fail(future, RequestError(413, f"{text}; send fewer at once"))
        elif item.pixels > SLOW_PIXELS and waiting and waiting + pixels > most:
            fail(
                item.future,
                unavailable("the server is busy: other large images wait already; try again later"),
            )
        if not item.future.done():
            self._queue.appendleft(item)

    def _drop_expired(self) -> None:
        now = time.monotonic()
        if all(item.deadline > now and not item.future.done() for item in self._queue):
            return
        kept: deque[Item] = deque()
        for item in self._queue:
            if item.future.done():
                continue
            if item.deadline <= now:
                item.future.set_exception(unavailable("the image waited too long; try again later"))
                self._metrics.expired.inc()
            else:
                kept.append(item)
        self._queue = kept
        self._metrics.queue.set(len(kept))

    def _deliver(self, message: dict[str, Any], payloads: list[bytes], started: float) -> None:
        batch = self._sent.popleft()
        now = time.monotonic()
        if message["event"] == "error":
            log_event("batch failed", "error", model=self.name, error=message["error"])
            for item in batch:
                fail(item.future, RuntimeError(message["error"]))
            return
        if batch[0].explains:
            self._metrics.explanation.observe(message["inference_seconds"])
        elif not batch[0].alone and not any("pixels" in values for values in message["answers"]):
            seconds = (now - started) / len(batch)
            rate = 0.2 if self._seconds_per_image else 1.0
            self._seconds_per_image += rate * (seconds - self._seconds_per_image)
        if not batch[0].explains:
            self._metrics.inference.observe(message["inference_seconds"])
        self._metrics.decoding.observe(message["decoding_seconds"])
        # From the last on, so that images that must be asked for again come first, and in their order.
        for item, values, rows in reversed(list(zip(batch, message["answers"], payloads, strict=True))):
            if "pixels" in values:
                self._weigh(item, values["pixels"])
                continue
            waited = max(now - item.queued - message["inference_seconds"], 0.0)
            self._metrics.waiting.observe(waited)
            (self._metrics.failed if "error" in values else self._metrics.answered).inc()
            timing = {
                "waiting_seconds": round(waited, 6),
                "inference_seconds": round(message["inference_seconds"], 6),
                "batch": len(batch),
            }
            if not item.future.done():
                item.future.set_result(Answered(values, rows, timing))


def _fitting(images: Sequence[Item]) -> list[Item]:
    """The first images, as many as may be decoded together; one at least."""
    pixels = accumulate(item.pixels for item in images)
    return [item for item, together in zip(images, pixels, strict=True) if together <= BATCH_PIXELS]
