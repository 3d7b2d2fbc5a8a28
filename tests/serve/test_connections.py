"""What arrives on a connection: hosts, headers, chunks, what is no HTTP; and the lines of the log."""

import contextlib
import json
import socket
import subprocess
import sys
import time

import pytest
from hostile import Honest
from servers import Reply, Serve, Served, start_server

from inception.errors import UsageError
from inception.serve.hosts import Hosts
from inception.serve.settings import Settings

HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n"
CLASSIFY = b"POST /classify HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = CLASSIFY + b"Transfer-Encoding: chunked\r\n\r\n"


def send(server: Served, data: bytes) -> Reply:
    """The first answer to some bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        with contextlib.suppress(OSError):  # the server has answered and closed before it had all
            connection.sendall(data)
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = connection.recv(65536)
            assert chunk, received
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        while len(body) < int(headers["content-length"]):
            body += connection.recv(65536)
        return Reply(int(first.split()[1]), headers, body)


LOCAL = [
    "localhost",
    "LOCALHOST:8000",
    "localhost.",
    "a.localhost",
    "127.0.0.1:8000",
    "127.8.8.8",
    "[::1]:80",
]
ADDRESSES = ["10.1.2.3", "10.1.2.3:8000", "[2001:db8::1]:8000", "192.168.0.9"]
NAMES = ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "xn--a.b"]
NONSENSE = [
    "",
    ":8000",
    "a b",
    "[::1",
    "localhost:x",
    "localhost/..",
    "user@localhost",
    "127.0.0.1,evil",
    "\xe9",
]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_a_local_server_answers_under_local_names(host):
    hosts = Hosts(Settings(host=host))
    assert all(hosts.accepts(name) for name in LOCAL)
    assert not any(hosts.accepts(name) for name in (*ADDRESSES, *NAMES, *NONSENSE))
    assert hosts.accepts(None)


def test_names_can_be_allowed():
    hosts = Hosts(Settings(allow_hosts=("Roses.Example", "10.1.2.3")))
    assert all(hosts.accepts(name) for name in (*LOCAL, "roses.example", "ROSES.example.:80", "10.1.2.3:80"))
    assert not any(hosts.accepts(name) for name in ("a.roses.example", "10.1.2.4", *NAMES, *NONSENSE))
    assert all(Hosts(Settings(allow_hosts=("*",))).accepts(name) for name in NAMES)
    for wrong in ("http://a", "a:80", "a/b", "", "*.a"):
        with pytest.raises(UsageError, match="without scheme and port"):
            Settings(allow_hosts=(wrong,))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3"])
def test_a_server_of_the_network_answers_under_addresses(host):
    hosts = Hosts(Settings(host=host))
    assert all(hosts.accepts(name) for name in (*LOCAL, *ADDRESSES))
    assert not any(hosts.accepts(name) for name in (*NAMES, *NONSENSE))
    assert Hosts(Settings(host="roses.example")).accepts("roses.example:8000")


@pytest.mark.parametrize("path", ["/", "/classify", "/models", "/v2/health/live", "/static/page.js", "/none"])
def test_a_rebound_page_reads_nothing(served: Served, pictures, path):
    for method in ("GET", "POST"):
        reply = served.ask(method, path, pictures[0].read_bytes(), {"Host": f"evil.example:{served.port}"})
        assert reply.status == 421
        assert "--allow-host" in reply.json()["error"]
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert served.ask("GET", path, headers={"Host": f"localhost:{served.port}"}).status in (200, 404, 405)


def test_the_command_takes_names(bundle_path):
    server = start_server(bundle_path, "--allow-host", "roses.example", "--allow-host", "roses")
    try:
        for name, status in (("roses.example", 200), ("roses:8000", 200), ("evil.example", 421)):
            assert server.ask("GET", "/v2/health/ready", headers={"Host": name}).status == status
    finally:
        server.stop()


NO_HTTP = {
    "one long header": (HEALTH + b"X: " + b"y" * 200_000 + b"\r\n\r\n", 431),
    "just too long": (HEALTH + b"X: " + b"y" * 16_384 + b"\r\n\r\n", 431),
    "many headers": (HEALTH + b"".join(b"X-%d: y\r\n" % n for n in range(9000)) + b"\r\n", 431),
    "folded lines": (HEALTH + b"X: y\r\n" + b" y\r\n" * 60_000 + b"\r\n", 431),
    "a long path": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
    "trailers": (CHUNKED + b"0\r\n" + b"a: b\r\n" * 50_000 + b"\r\n", 431),
    "a long chunk's name": (CHUNKED + b"1;" + b"a" * 100_000 + b"\r\nx\r\n", 431),
    "tiny chunks": (CHUNKED + b"1\r\nx\r\n" * 300_000, 413),
    "a bad chunk": (CHUNKED + b"zz\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two lengths": (CLASSIFY + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "gzip": (CLASSIFY + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "blank lines": (b"\r\n" * 100_000, 400),
}


@pytest.mark.parametrize("name", NO_HTTP)
def test_errors_of_the_protocol_are_json_with_the_security_headers(served: Served, name):
    data, status = NO_HTTP[name]
    reply = send(served, data)
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["connection"] == "close"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    [text] = reply.json().values()
    assert reply.json().keys() == {"error"}
    assert "\n" not in text
    time.sleep(0.05)
    [line] = [line for line in served.log if line.get("request_id") == reply.headers["x-request-id"]]
    assert (line["event"], line["status"]) == ("request", status)


def test_headers_up_to_the_limit_are_taken_however_they_arrive(served: Served):
    assert send(served, HEALTH + b"X: " + b"y" * 16_200 + b"\r\n\r\n").status == 200
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall((HEALTH + b"\r\n") * 3 + HEALTH + b"X: " + b"y" * 17_000 + b"\r\n\r\n")
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert (received.count(b"HTTP/1.1 200"), received.count(b"HTTP/1.1 431")) == (3, 1)


def test_bodies_in_chunks_of_usual_sizes_are_taken(served: Served, pictures):
    data = pictures[0].read_bytes()
    for size in (70, 1000, 20_000):
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        assert send(served, CHUNKED + framed + b"0\r\n\r\n").status == 200, size


def test_others_are_answered_while_tiny_chunks_arrive(served: Served, pictures):
    honest = Honest(served, pictures[0].read_bytes(), pause=0.05)
    with honest.asking():
        for _ in range(3):
            assert send(served, CHUNKED + b"1\r\nx\r\n" * 500_000).status == 413
    assert honest.refused == []
    assert max(honest.health + honest.answers) < 3


def test_too_many_connections_are_told_in_json(serve: Serve, bundle_path):
    server = serve(bundle_path, max_connections=1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30):
        time.sleep(0.2)
        reply = send(server, b"")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.json()["error"]


PRINTING = """
import asyncio, ctypes, os, sys, threading, warnings
from inception.serve.logs import log_event, log_standard_error, set_up_logs
set_up_logs("info")
if sys.argv[1] == "worker":
    log_standard_error()
    os.write(2, b"a line of C\\n" * 3)
    print("a line of Python", file=sys.stderr)
    import time; time.sleep(0.5)
log_event("our own", words="a\\nb")
warnings.warn("old\\nand new")
asyncio.new_event_loop().call_exception_handler({"message": "a lost future"})
thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()
raise ValueError("the end")
"""


@pytest.mark.parametrize("part", ["server", "worker"])
def test_every_line_of_the_log_is_json(part):
    done = subprocess.run(
        [sys.executable, "-c", PRINTING, part], capture_output=True, text=True, check=False, timeout=100
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    events = [line["event"] for line in lines]
    wanted = ["our own", "warning", "a lost future", "uncaught error", "uncaught error"]
    assert [event for event in events if event != "printed"] == wanted
    printed = [line["text"] for line in lines if line["event"] == "printed"]
    assert printed == (["a line of C"] * 3 + ["a line of Python"] if part == "worker" else [])
    assert all({"time", "level"} <= line.keys() for line in lines)


def test_a_pipe_that_is_full_stops_nobody():
    lines = [
        "import os, contextlib",
        "from inception.serve.logs import *",
        "set_up_logs('info')",
        "log_standard_error()",
        "for _ in range(200_000):",
        "    with contextlib.suppress(BlockingIOError): os.write(2, b'x' * 99 + b'\\n')",
    ]
    script = "\n".join(lines)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0
    assert all(json.loads(line)["event"] == "printed" for line in done.stderr.splitlines())


def test_a_running_server_writes_nothing_but_json(served: Served, pictures):
    for data, _ in NO_HTTP.values():
        send(served, data)
    served.ask("POST", "/classify", pictures[0].read_bytes()[:200])
    time.sleep(0.2)
    assert not [line for line in served.log if line["event"] == "text"]
