"""Bodies made to keep the server busy: they are refused quickly, and others are answered meanwhile."""

import asyncio
import json
import threading
import time
from array import array
from io import BytesIO

import pytest
from hostile import INFER, Honest, empty_texts, in_json, progressive, repeated
from PIL import Image
from servers import Served, multipart

from inception.serve.costs import scanned_pixels, scans_of
from inception.serve.inference import OUTPUTS, InferRequest, encode_answer, parse_request
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


def picture(side: int, form: str = "PNG", **options: object) -> bytes:
    stream = BytesIO()
    Image.radial_gradient("L").resize((side, side)).convert("RGB").save(stream, form, **options)
    return stream.getvalue()


def test_scans_of_a_jpeg_over_all_its_pixels_are_refused_at_once(served: Served, pictures):
    bomb = progressive(7000, 300)
    honest = Honest(served, pictures[0].read_bytes(), pause=0.05)
    with honest.asking():
        one = served.ask("POST", "/classify", bomb)
        several = served.ask("POST", "/classify", *multipart([("a", bomb)] * 4))
    assert (one.status, several.status) == (413, 413)
    assert "305 scans" in one.json()["error"]
    assert "305 scans" in several.json()["results"][3]["error"]
    assert honest.refused == []
    assert max(honest.health + honest.answers) < PATIENCE
    assert served.metric("inception_inference_process_losses_total") == 0


def test_others_are_answered_while_large_images_are_read(served: Served, pictures):
    honest = Honest(served, pictures[0].read_bytes(), pause=0.05)
    large = multipart([(f"{n}.jpg", progressive(7000, 2)) for n in range(3)])
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(served.ask("POST", "/classify", *large).status))
        for _ in range(2)
    ]
    with honest.asking():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(statuses) <= {200, 413, 503}
    assert honest.refused == []
    assert max(honest.health) < PATIENCE
    assert max(honest.answers) < 2 * PATIENCE


def test_large_and_small_images_of_one_form_keep_their_places(served: Served, pictures):
    files = [
        picture(4200),
        pictures[1].read_bytes(),
        picture(2600, "JPEG", progressive=True),
        picture(3000, "JPEG", quality=50),
    ]
    together = served.ask(
        "POST", "/classify", *multipart([(f"{n}.png", data) for n, data in enumerate(files)])
    )
    assert together.status == 200
    results = together.json()["results"]
    assert [result["path"] for result in results] == ["0.png", "1.png", "2.png", "3.png"]
    for data, result in zip(files, results, strict=True):
        [alone] = served.ask("POST", "/classify", data).json()["results"]
        assert [top["label"] for top in alone["top"]] == [top["label"] for top in result["top"]]
        assert alone["top"][0]["probability"] == pytest.approx(result["top"][0]["probability"], abs=1e-5)
    assert served.ask("POST", "/explain?form=png", files[0]).status == 200


def test_scans_are_counted_beyond_the_metadata():
    plain = picture(64, "JPEG")
    assert (scans_of(plain), scanned_pixels(plain)) == (1, (64 * 64, 1))
    usual = picture(64, "JPEG", progressive=True)
    assert scanned_pixels(usual) == (10 * 64 * 64, 10)
    thumbnail = b"\xff\xe1" + (2 + len(plain)).to_bytes(2, "big") + plain
    assert scans_of(usual[:2] + thumbnail + usual[2:]) == 10
    assert scans_of(usual[:2] + b"\xff\xff\xff" + thumbnail[1:] + usual[2:]) == 10
    assert scans_of(progressive(64, 40)) == 45
    assert scanned_pixels(picture(64)) == (64 * 64, 1)
    assert scanned_pixels(b"nothing") == (0, 1)
    for cut in range(len(usual)):
        assert scans_of(usual[:cut]) >= 1


def test_large_answers_are_written_in_pieces_and_are_the_same():
    request = InferRequest('a"b', "file", (), OUTPUTS, frozenset())
    rows = [array("f", [1 / (n + 3) for n in range(2 * 21_841)]).tobytes() for _ in range(2)]
    content, head = encode_answer(request, "roses", "1", rows)
    document = json.loads(content)
    assert (head, document["id"], document["model_name"]) == (None, 'a"b', "roses")
    for position, output in enumerate(document["outputs"]):
        one = array("f", rows[0])[position * 21_841 : (position + 1) * 21_841].tolist()
        assert (output["name"], output["shape"]) == (OUTPUTS[position], [2, 21_841])
        assert output["data"] == one * 2
    pauses: list[float] = []
    end = threading.Event()

    def watch() -> None:
        while not end.is_set():
            start = time.monotonic()
            time.sleep(0.001)
            pauses.append(time.monotonic() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    encode_answer(request, "roses", "1", rows * 10)
    end.set()
    watcher.join()
    assert max(pauses) < 0.5
