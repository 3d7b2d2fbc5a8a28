"""Which of the waiting images make the next batch, and which are refused, without any process behind."""

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inception.serve import engine as module
from inception.serve.engine import Engine
from inception.serve.metrics import Metrics
from inception.serve.settings import BATCH_PIXELS, LIGHT_PIXELS, SLOW_PIXELS, RequestError, Settings


class Process:
    """Notes what it is sent."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def send(self, message: dict[str, Any], payloads: Sequence[bytes]) -> None:
        self.batches.append([payload.decode() for payload in payloads])


def batches(names: str, size: int, tmp_path, rounds: int = 10) -> list[list[str]]:
    """The batches in which `names` are computed, one batch at a time; capitals ask for explanations."""

    async def run() -> list[list[str]]:
        engine = Engine("m", "1", tmp_path, Settings(max_batch=size, max_explanations=9), Metrics())
        engine.submit([({"explain": name.isupper()}, name.encode()) for name in names])
        process = Process()
        for _ in range(rounds):
            engine._send_batches(process)
            engine._sent.clear()
        return process.batches

    return asyncio.run(run())


def test_images_go_first_and_keep_their_order(tmp_path):
    assert batches("aBcdEfg", 2, tmp_path) == [["a", "c"], ["d", "f"], ["g"], ["B"], ["E"]]


def test_an_explanation_that_has_waited_takes_its_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLOW_YIELDS_SECONDS", 0.0)
    assert batches("abCde", 2, tmp_path) == [["C"], ["a", "b"], ["d", "e"]]


def test_batches_hold_at_most_so_many_images(tmp_path):
    assert batches("abcdefg", 3, tmp_path) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


def work(requests: list[list[int]], max_pixels: int = 50_000_000) -> tuple[list[list[int]], list[int]]:
    """Batches sent for requests of images with so many pixels, and the status that each image got.

    As an inference process does, one with many pixels is weighed when it comes for the first time.
    """

    async def run() -> tuple[list[list[int]], list[int]]:
        settings = Settings(max_pixels=max_pixels, max_batch=4)
        engine = Engine("m", "1", Path(), settings, Metrics())
        futures = [
            future
            for images in requests
            for future in engine.submit([({}, str(pixels).encode()) for pixels in images])
        ]
        computed: list[list[int]] = []

        answers: deque[list[dict[str, Any]]] = deque()

        class Worker:
            def send(self, message: dict[str, Any], payloads: Sequence[bytes]) -> None:
                sizes = [int(payload) for payload in payloads]
                weighed = [bool(ask.get("weighed")) for ask in message["asks"]]
                pairs = list(zip(sizes, weighed, strict=True))
                answers.append(
                    [{"pixels": n} if n > LIGHT_PIXELS and not known else {} for n, known in pairs]
                )
                if done := [n for n, known in pairs if known or n <= LIGHT_PIXELS]:
                    computed.append(done)

        worker: Any = Worker()
        timing = {"decoding_seconds": 0.0, "inference_seconds": 0.0}
        while engine._queue:
            engine._send_batches(worker)
            while engine._sent:
                message = {"event": "answers", "answers": answers.popleft(), **timing}
                engine._deliver(message, [b""] * len(engine._sent[0]), 0.0)
            engine._drop_expired()
        statuses = [
            error.status if isinstance(error := future.exception(), RequestError) else 200
            for future in futures
        ]
        return computed, statuses

    return asyncio.run(run())


LIGHT, MIDDLE, SLOW = 1, BATCH_PIXELS // 3 - 1, SLOW_PIXELS + 1


def test_a_batch_holds_at_most_so_many_pixels():
    computed, statuses = work([[MIDDLE]] * 7)
    assert sum(map(len, computed)) == 7
    assert max(map(len, computed)) == 3
    assert statuses == [200] * 7


def test_what_takes_long_comes_alone_and_after_others():
    computed, statuses = work([[SLOW], [LIGHT], [SLOW], [LIGHT], [LIGHT]])
    assert computed == [[LIGHT, LIGHT], [LIGHT], [SLOW], [SLOW]]
    assert statuses == [200] * 5


def test_images_that_come_meanwhile_go_between_two_that_take_long(monkeypatch):
    monkeypatch.setattr(module, "_SLOW_YIELDS_SECONDS", 0.0)
    computed, _ = work([[SLOW]] * 3 + [[LIGHT]] * 11)
    assert [len(batch) for batch in computed] == [1, 4, 1, 4, 2, 1, 1]
    assert [batch[0] == SLOW for batch in computed] == [False, False, True, False, False, True, True]


def test_many_images_of_one_request_do_not_hold_up_others():
    computed, _ = work([[LIGHT + 1] * 12, [LIGHT], [LIGHT]])
    assert computed[1] == [LIGHT, LIGHT, LIGHT + 1, LIGHT + 1]


def test_a_request_with_too_many_pixels_is_refused_whole():
    most = 20 * 2_000_000
    assert work([[SLOW, LIGHT, most - SLOW, LIGHT]], 2_000_000)[1] == [200] * 4
    computed, statuses = work([[LIGHT], [SLOW, SLOW, SLOW]], 2_000_000)
    assert (computed, statuses) == ([[LIGHT]], [200, 413, 413, 413])


def test_few_images_that_take_long_may_wait():
    computed, statuses = work([[SLOW], [SLOW], [SLOW], [LIGHT]], 2_000_000)
    assert sorted(statuses) == [200, 200, 200, 503]
    assert statuses[3] == 200
    assert computed == [[LIGHT], [SLOW], [SLOW]]
