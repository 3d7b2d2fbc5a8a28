"""Which of the waiting images make the next batch, without any process behind."""

import asyncio
from collections.abc import Sequence
from typing import Any

from inception.serve import engine as module
from inception.serve.engine import Engine
from inception.serve.metrics import Metrics
from inception.serve.settings import Settings


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
    monkeypatch.setattr(module, "_EXPLANATION_YIELDS_SECONDS", 0.0)
    assert batches("abCde", 2, tmp_path) == [["C"], ["a", "b"], ["d", "e"]]


def test_batches_hold_at_most_so_many_images(tmp_path):
    assert batches("abcdefg", 3, tmp_path) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
