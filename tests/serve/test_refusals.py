"""A full queue says no quickly, and in the same words as the usual way."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from servers import TOKEN, Served, start_server

BODY = b"x" * 3000


@pytest.fixture(scope="module")
def full(bundle_path, pictures, tmp_path_factory) -> Iterator[Served]:
    """A server with a token whose queue is full, because its inference process is stopped."""
    server = start_server(
        bundle_path, max_batch=1, max_queue=1, max_images=1, deadline_seconds=600.0, token=TOKEN
    )
    allowed, body = {"Authorization": f"Bearer {TOKEN}"}, pictures[0].read_bytes()
    worker, statuses = server.worker(), []
    subprocess.run(["kill", "-STOP", str(worker)], check=True)

    def ask() -> None:
        statuses.append(server.ask("POST", "/classify", body, allowed).status)

    def waiting() -> bool:
        text = server.ask("GET", "/metrics", headers=allowed).body.decode()
        return 'inception_queue_images{model="shapes"} 1.0' in text

    threads = [threading.Thread(target=ask) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
            time.sleep(0.2)
        end = time.monotonic() + 60
        while not waiting() and time.monotonic() < end:
            time.sleep(0.05)
        yield server
    finally:
        subprocess.run(["kill", "-CONT", str(worker)], check=True)
    for thread in threads:
        thread.join()
    assert statuses == [200, 200, 200]
    assert server.stop() == 0


def request(
    path: str = "/classify", *headers: str, body: bytes = BODY, length: int | None = None, token: str = TOKEN
) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(body) if length is None else length}",
    ]
    return "\r\n".join((*lines, f"Authorization: Bearer {token}", *headers, "", "")).encode() + body


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next answer on a connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    assert len(body) == int(headers["content-length"])
    return int(first.split()[1]), headers, body


@pytest.fixture
def connection(full: Served) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", full.port), timeout=60) as connection:
        yield connection


def test_both_ways_say_the_same(full: Served, connection):
    connection.sendall(request("/classify", "X-Request-Id: quick"))
    quick = answer(connection)
    chunked = request("/classify", "X-Request-Id: usual").replace(
        b"Content-Length: 3000", b"Transfer-Encoding: chunked"
    )
    connection.sendall(chunked[: -len(BODY)] + b"3\r\nabc\r\n0\r\n\r\n")
    usual = answer(connection)
    assert quick[0] == usual[0] == 503
    assert quick[2] == usual[2]
    differing = {"x-request-id": "", "date": ""}
    assert {**quick[1], **differing} == {**usual[1], **differing}
    assert quick[1].keys() == usual[1].keys()
    assert int(quick[1]["retry-after"]) >= 1
    time.sleep(0.2)
    lines = {line["request_id"]: line for line in full.log if line.get("request_id") in ("quick", "usual")}
    same = ("event", "method", "route", "status", "client")
    assert [lines["quick"][name] for name in same] == [lines["usual"][name] for name in same]


@pytest.mark.parametrize(
    "path", ["/classify?model=shapes&top=2", "/explain", "/v2/models/shapes/infer", "/classify"]
)
def test_every_route_to_the_queue(connection, path):
    for _ in range(3):  # on one connection
        connection.sendall(request(path))
        status, _, body = answer(connection)
        assert (status, "busy" in json.loads(body)["error"]) == (503, True)


def test_bodies_that_come_late_or_in_pieces_are_skipped(connection):
    whole = request()
    connection.sendall(whole[:-2000])
    assert answer(connection)[0] == 503
    for start in range(len(whole) - 2000, len(whole), 500):
        connection.sendall(whole[start : start + 500])
        time.sleep(0.01)
    connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer(connection)[0] == 200
    # The end of one body and the next request in one piece; and a head in two.
    connection.sendall(whole[:-10])
    assert answer(connection)[0] == 503
    connection.sendall(whole[-10:] + whole[:40])
    connection.sendall(whole[40:])
    assert answer(connection)[0] == 503
    connection.sendall(whole + whole)  # both at once: the usual way
    received = b""
    while received.count(b"HTTP/1.1 503") < 2 or not received.endswith(b"}"):
        received += connection.recv(65536)


@pytest.mark.parametrize(
    "sent, status",
    [
        (request(token="wrong" * 4), 401),
        (request("/classify", "Sec-Fetch-Site: cross-site"), 403),
        (request("/classify?model=nobody"), 404),
        (request("/v2/models/nobody/infer"), 404),
        (request("/classify", "Content-Length: 3001"), 400),
        (request("/classify", "Bad Header: x"), 400),
        (request("/classify", " folded"), 401),
        (request(length=-1), 400),
        (request("/models"), 405),
        (request().replace(b"Host: localhost\r\n", b""), 400),
        (request().replace(b"POST", b"PUT"), 405),
        (request().replace(b"localhost", b"evil.example"), 421),
    ],
)
def test_nothing_else_is_answered_here(connection, sent, status):
    connection.sendall(sent)
    assert connection.recv(65536).startswith(f"HTTP/1.1 {status}".encode())
