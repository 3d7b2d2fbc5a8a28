"""Bodies made to keep the server busy: they are refused quickly, and others are answered meanwhile."""

import asyncio
import json
import threading
import time

import pytest
from hostile import INFER, Honest, empty_texts, in_json, repeated
from servers import Served

from inception.serve.inference import parse_request
from inception.serve.json_bounds import MAX_DEPTH, parse_json
from inception.serve.parsing import Parsing
from inception.serve.settings import RequestError, Settings

MEGA = 1 << 20
PATIENCE = 3.0
"""Seconds; half a second where nothing else runs."""


@pytest.mark.parametrize(
    "requests",
    [
        [empty_texts(31 * MEGA, images=4)],
        [in_json(repeated(b"[]", 4 * MEGA - 200))] * 3,
        [in_json(repeated(b"{}", 4 * MEGA - 200), b"parameters")] * 3,
        [in_json(repeated(b'"ab"', 4 * MEGA - 200))] * 3,
        [in_json(repeated(b"1e5", 4 * MEGA - 200))] * 3,
        [("/classify", b'{"image":"' + b"A " * (15 * MEGA) + b'"}', {})] * 2,
        [("/classify", b'{"image":"' + b"\\/" * (15 * MEGA) + b'"}', {})] * 2,
    ],
    ids=["empty texts", "lists", "objects", "texts", "fractions", "spaces", "escapes"],
)
def test_others_are_answered_while_a_hostile_body_is_read(served: Served, pictures, requests):
    honest = Honest(served, pictures[0].read_bytes(), pause=0.05)
    statuses: list[int] = []

    def attack(path: str, body: bytes, headers: dict[str, str]) -> None:
        statuses.append(served.ask("POST", path, body, headers).status)

    with honest.asking():
        threads = [threading.Thread(target=attack, args=request) for request in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(statuses) <= {400, 415}
    assert len(statuses) == len(requests)
    assert honest.refused == []
    assert max(honest.health) < PATIENCE
    assert max(honest.answers) < PATIENCE


def refusal(body: bytes, header: str | None = None) -> str:
    start = time.process_time()
    with pytest.raises(RequestError) as caught:
        parse_request(body, header, (3, 32, 32), Settings())
    assert time.process_time() - start < 2
    assert caught.value.status == 400
    return str(caught.value)


def test_elements_are_read_up_to_the_first_too_many():
    _, body, headers = empty_texts(31 * MEGA, images=2)
    assert "more images than the shape, which has 2" in refusal(body, *headers.values())
    source = {"name": "images", "datatype": "BYTES", "shape": [1], "data": ["aGk="] * 40}
    assert "more images than the shape, which has 1" in refusal(json.dumps({"inputs": [source]}).encode())
    pixels = {"name": "images", "datatype": "UINT8", "shape": [1, 3, 32, 32]}
    many = json.dumps({"inputs": [{**pixels, "data": [[0] * 3000] * 5}]}).encode()
    assert "more than the 3072 values" in refusal(many)


@pytest.mark.parametrize(
    "data, words",
    [
        (repeated(b"[]", 4 * MEGA - 200), "2,796,0"),
        (repeated(b"[[[]]]", 4 * MEGA - 200), "values"),
        (repeated(b"7", 4 * MEGA - 200), "values"),
        (repeated(b'"a"', 4 * MEGA - 200), "texts"),
        (repeated(b'"\\""', 4 * MEGA - 200), "texts"),
        (b"{" + b",".join(b'"%d":1' % n for n in range(200_000)) + b"}", "texts"),
        (repeated(b"0.5", 20_000), "not whole"),
        (repeated(b"-1E9", 20_000), "not whole"),
        (b"[" * 17 + b"]" * 17, "nested"),
        (b'["]]]]]",' * 17 + b"7" + b"]" * 17, "nested"),
        (b'[{"a":' * 9 + b"7" + b"}]" * 9, "nested"),
        (b"[" * 400_000, "values"),
    ],
)
def test_json_is_counted_before_it_is_built(data, words):
    assert words in refusal(in_json(data)[1])


@pytest.mark.parametrize(
    "text",
    [
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        r'{"a": "[[[[[[[[[[[[[[[[[[[[[", "b\\": "\\\"]", "c": ["\\\\", {"d": "\""}]}',
        '"plain"',
        "7",
        "\ufeff[true, false, null, 0.5]",
    ],
)
def test_what_stands_in_texts_is_not_counted(text):
    assert parse_json(text.encode(), values=20, lists=16, texts=8) == json.loads(text.removeprefix("\ufeff"))


def test_honest_requests_of_the_largest_size_are_read():
    settings = Settings()
    shape = (3, 299, 299)
    row = [255] * 299
    source = {"name": "images", "datatype": "UINT8", "shape": [3, *shape], "data": [[[row] * 299] * 3] * 3}
    body = json.dumps({"inputs": [source]}, separators=(",", ":")).encode()
    assert len(body) < settings.max_json_bytes
    assert [len(image) for image in parse_request(body, None, shape, settings).images] == [3 * 299 * 299] * 3


LARGE = 1 << 20


def test_small_bodies_are_read_first_and_one_at_a_time():
    done: list[int] = []
    running = threading.Lock()

    def parse(size: int) -> None:
        assert running.acquire(blocking=False)
        time.sleep(0.02)
        done.append(size)
        running.release()

    async def all_of(sizes: list[int]) -> None:
        parsing = Parsing(Settings())
        await asyncio.gather(*(parsing.run(size, parse, size) for size in sizes))
        await parsing.run(LARGE, parse, LARGE)  # it is free again

    asyncio.run(all_of([9 * LARGE, 5 * LARGE, 7 * LARGE, 3 * LARGE]))
    assert done == [9 * LARGE, 3 * LARGE, 5 * LARGE, 7 * LARGE, LARGE]


def test_the_queue_before_the_thread_is_bounded_and_nobody_waits_for_ever():
    settings = Settings(max_queue=2, max_images=1, deadline_seconds=0.2)

    async def crowd() -> list[object]:
        parsing = Parsing(settings)
        waiting = [parsing.run(LARGE, time.sleep, 0.6) for _ in range(4)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        await parsing.run(LARGE, time.sleep, 0)
        return list(found)

    first, *others = asyncio.run(crowd())
    assert first is None
    assert [getattr(other, "status", None) for other in others] == [503] * 3


def test_who_gives_up_keeps_nobody_waiting():
    async def give_up() -> None:
        parsing = Parsing(Settings())
        tasks = [asyncio.create_task(parsing.run(LARGE, time.sleep, 0.1)) for _ in range(4)]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        tasks[2].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in found if one is not None] == [asyncio.CancelledError] * 2
        await asyncio.wait_for(parsing.run(LARGE, time.sleep, 0), 5)

    asyncio.run(give_up())


def test_a_request_that_is_answered_by_an_error_says_so_in_json(served: Served):
    reply = served.ask("POST", INFER, in_json(repeated(b"[]", MEGA))[1])
    assert reply.status == 400
    assert reply.json().keys() == {"error"}
