"""What clients can do wrong, by mistake or on purpose, and the server's limits."""

import contextlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from io import BytesIO

import pytest
from PIL import Image
from servers import TOKEN, Serve, Served, multipart

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
POST = b"POST /classify HTTP/1.1\r\nHost: localhost\r\n"


@contextlib.contextmanager
def connected(server: Served) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def is_well(server: Served, picture: bytes) -> bool:
    return server.ask("POST", "/classify", picture).status == 200


@pytest.fixture(scope="module")
def small(bundle_path, tmp_path_factory) -> Iterator[Served]:
    """A server with small limits."""
    from servers import start_server

    server = start_server(
        bundle_path,
        max_body_bytes=100_000,
        max_json_bytes=50_000,
        max_pixels=4000,
        max_images=3,
        max_connections=8,
        body_seconds=0.5,
        header_seconds=0.7,
        drain_seconds=0.0,
    )
    yield server
    assert server.stop() == 0


def paths_of(document: dict, version: str) -> list[str]:
    names = {"{model}": "shapes", "{version}": version, "{name}": "page.js"}
    found = []
    for path in document["paths"]:
        filled = path
        for placeholder, value in names.items():
            filled = filled.replace(placeholder, value)
        found.append(filled)
    return found


def test_every_route_takes_what_it_documents_and_no_other_method(served: Served):
    document = served.ask("GET", "/openapi.json").json()
    version = served.ask("GET", "/v2/models/shapes").json()["versions"][0]
    for path, operations in zip(paths_of(document, version), document["paths"].values(), strict=True):
        allowed = {method.upper() for method in operations} - {"PARAMETERS"}
        allowed |= {"HEAD"} if "GET" in allowed else set()
        for method in METHODS:
            reply = served.ask(method, path)
            assert reply.status < 500, (method, path, reply)
            assert (reply.status != 405) == (method in allowed), (method, path)
            if reply.status == 405:
                assert set(reply.headers["allow"].replace(" ", "").split(",")) == allowed


def test_routes_are_those_documented(served: Served):
    from inception.serve.app import Api

    document = served.ask("GET", "/openapi.json").json()
    routes = Api.routes(Api.__new__(Api))
    assert {route.path for route in routes} == document["paths"].keys()


def test_answers_fit_the_openapi_document(served: Served):
    pytest.importorskip("schemathesis", reason="needs schemathesis to draw requests")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}openapi.json"]
    options = ["--max-examples=3", "--seed=1", "--phases=coverage,fuzzing"]
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    done = subprocess.run(
        [*command, *options, f"--checks={checks}"], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("path", ["/", "/classify", "/v2", "/metrics", "/no/such/path", "/static/page.js"])
def test_every_answer_has_security_headers(served: Served, path):
    headers = served.ask("GET", path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/",
        "//",
    ],
)
def test_no_other_files_are_served(served: Served, path):
    assert served.ask("GET", path).status == 404


def test_request_ids_are_echoed_only_when_harmless(served: Served):
    assert served.ask("GET", "/v2", headers={"X-Request-Id": "my-7"}).headers["x-request-id"] == "my-7"
    strange = served.ask("GET", "/v2", headers={"X-Request-Id": '"<b>' + "x" * 99}).headers["x-request-id"]
    assert len(strange) == 16


def test_pages_of_other_sites_get_nothing(served: Served, pictures):
    body = pictures[0].read_bytes()
    assert served.ask("POST", "/classify", body, {"Sec-Fetch-Site": "cross-site"}).status == 403
    assert served.ask("POST", "/classify", body, {"Sec-Fetch-Site": "same-origin"}).status == 200


def test_a_token_opens_all_but_probes_and_the_page(guarded: Served, pictures):
    server = guarded
    for path in ("/", "/static/page.js", "/openapi.json", "/v2/health/live", "/v2/health/ready"):
        assert server.ask("GET", path).status == 200
    for path in ("/models", "/metrics", "/v2", "/v2/models/shapes", "/anything"):
        reply = server.ask("GET", path)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    body = pictures[0].read_bytes()
    wrong = [
        "",
        "Bearer",
        "Bearer x",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer é",
    ]
    for value in wrong:
        reply = server.ask(
            "POST", "/classify", body, {"Authorization": value.encode("latin-1").decode("latin-1")}
        )
        assert reply.status == 401
    assert server.ask("POST", "/classify", body, {"Authorization": f"Bearer {TOKEN}"}).status == 200


def test_bodies_over_the_limit_are_refused_before_they_are_read(small: Served):
    with connected(small) as connection:
        connection.sendall(POST + b"Content-Length: 99999999999\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    with connected(small) as connection:  # no announced length
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(20):
                connection.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_parts_pixels_json_and_headers_have_limits(small: Served, pictures):
    tiny = pictures[0].read_bytes()
    assert small.ask("POST", "/classify", *multipart([("a", tiny)] * 3)).status == 200
    assert small.ask("POST", "/classify", *multipart([("a", tiny)] * 4)).status == 413
    stream = BytesIO()
    Image.new("RGB", (100, 100)).save(stream, "PNG")
    reply = small.ask("POST", "/classify", stream.getvalue())
    assert (reply.status, "10" in reply.json()["error"]) == (413, True)
    assert small.ask("POST", "/v2/models/shapes/infer", b" " * 60_000).status == 413
    with connected(small) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 40_000)
        assert connection.recv(4096).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


def test_slow_clients_are_let_go(small: Served, pictures):
    with connected(small) as headers, connected(small) as body, connected(small) as silent:
        headers.sendall(b"GET / HTTP/1.1\r\nHo")
        body.sendall(POST + b"Content-Length: 1000\r\n\r\nx")
        start = time.monotonic()
        assert read_all(body).startswith(b"HTTP/1.1 408")
        assert read_all(headers) == b""
        assert read_all(silent) == b""
        assert time.monotonic() - start < 60
    assert is_well(small, pictures[0].read_bytes())


def test_lying_lengths_half_closed_and_killed_connections(small: Served, pictures):
    data = pictures[0].read_bytes()
    with connected(small) as connection:  # more bytes than announced: the rest is no request
        connection.sendall(POST + b"Content-Length: 2\r\n\r\n" + data)
        assert b"HTTP/1.1 415" in read_all(connection)
    with connected(small) as connection:  # fewer, and no more will come
        connection.sendall(POST + b"Content-Length: 5000\r\n\r\n" + data[:100])
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection)[:12] in (b"", b"HTTP/1.1 400")
    for length in (b"-1", b"1e3", b"0x10", b"1, 2", b"\xb2"):
        with connected(small) as connection:
            connection.sendall(POST + b"Content-Length: " + length + b"\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 400")
    for _ in range(20):
        with connected(small) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset on close
            head = POST + f"Content-Length: {len(data)}\r\n\r\n".encode()
            connection.sendall(head + data)
    time.sleep(0.3)  # the server notices that they are gone
    assert is_well(small, data)
    assert not [line for line in small.log if line["event"] == "text"]
    assert not [line for line in small.log if "traceback" in line]


def test_connections_are_limited(small: Served, pictures):
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(connected(small)) for _ in range(12)]
        refused = sum(b"503 Service Unavailable" in read_all(connection) for connection in many)
    assert 1 <= refused <= 5
    time.sleep(0.1)
    assert is_well(small, pictures[0].read_bytes())


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://other.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Transfer-Encoding: gzip\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"GET /%00%ff%2e HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /classify?top=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_hardly_http(small: Served, pictures, garbage):
    with connected(small) as connection:
        connection.sendall(garbage)
        connection.settimeout(5)
        reply = connection.recv(4096)
        assert not reply.startswith(b"HTTP/1.1 5") or reply.startswith(b"HTTP/1.1 501")
    assert is_well(small, pictures[0].read_bytes())


def sound(reply_body: bytes) -> None:
    """An error tells no path and no traceback."""
    text = json.loads(reply_body)["error"]
    assert "/" not in text.replace("Content-Type/", ""), text
    assert "Traceback" not in text


def test_hostile_images_are_client_errors(served: Served, shared):
    before = served.metric("process_resident_memory_bytes")
    codes: dict[int, int] = {}
    with zipfile.ZipFile(shared / "data" / "bad-images.zip") as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            reply = served.ask("POST", "/classify", archive.read(info))
            codes[reply.status] = codes.get(reply.status, 0) + 1
            if reply.status != 200:
                sound(reply.body)
    assert set(codes) <= {200, 400, 413, 415, 422}, codes
    assert served.metric("process_resident_memory_bytes") - before < 20e6
    assert served.metric("inception_inference_process_losses_total") == 0


@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000), (1, 1)])
def test_extreme_shapes_are_answered(served: Served, size):
    stream = BytesIO()
    Image.new("L", size, 99).save(stream, "PNG")
    assert served.ask("POST", "/classify", stream.getvalue()).status == 200


def test_mutated_images_are_answered_or_refused(served: Served, pictures):
    draw = random.Random(7)
    for _ in range(60):
        data = bytearray(draw.choice(pictures).read_bytes())
        for _ in range(draw.randint(1, 20)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        reply = served.ask("POST", "/classify", bytes(data[: draw.randint(1, len(data))]))
        assert reply.status in (200, 400, 413, 415, 422)
        if reply.status != 200:
            sound(reply.body)


def test_metrics_are_in_base_units_and_bounded(served: Served):
    served.ask("GET", "/no/such/path/at/all")
    served.ask("BREW", "/classify")
    text = served.ask("GET", "/metrics").body.decode()
    assert "such" not in text
    assert "BREW" not in text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE inception_")}
    assert not [name for name in names if "milli" in name or name.endswith(("_ms", "_percent"))]
    histograms = {line.split()[2] for line in text.splitlines() if line.endswith(" histogram")}
    assert {name for name in histograms if "_seconds" in name} >= {
        "inception_request_duration_seconds",
        "inception_waiting_seconds",
        "inception_inference_seconds",
    }


def test_every_request_is_one_line_of_json(served: Served):
    served.ask("GET", '/v2?secret="\nx"'.replace("\n", "%0a"), headers={"X-Request-Id": "log-1"})
    time.sleep(0.1)
    [line] = [line for line in served.log if line.get("request_id") == "log-1"]
    assert (line["event"], line["route"], line["status"], line["method"]) == (
        "request",
        "server_metadata",
        200,
        "GET",
    )
    assert "secret" not in json.dumps(line)


def test_a_full_queue_answers_503_at_once_and_deadlines_hold(serve: Serve, bundle_path, pictures):
    server = serve(bundle_path, max_batch=1, max_queue=2, max_images=1, deadline_seconds=4.0)
    data, replies = pictures[0].read_bytes(), []
    worker = server.worker()
    subprocess.run(["kill", "-STOP", str(worker)], check=True)

    def ask() -> None:
        start = time.monotonic()
        reply = server.ask("POST", "/classify", data)
        replies.append((reply.status, time.monotonic() - start))

    threads: list[threading.Thread] = []

    def ask_more(count: int, metric: str, value: float) -> None:
        """More clients; wait until the metric shows that the server has them."""
        for _ in range(count):
            threads.append(threading.Thread(target=ask))
            threads[-1].start()
        end = time.monotonic() + 60
        while server.metric(metric) != value and time.monotonic() < end:
            time.sleep(0.02)
        assert server.metric(metric) == value

    try:
        ask_more(2, "inception_batch_images_count", 2)  # with the stopped process, one of them ahead
        ask_more(2, "inception_queue_images", 2)
        start = time.monotonic()
        refused = [server.ask("POST", "/classify", data) for _ in range(8)]
        assert {reply.status for reply in refused} == {503}
        assert time.monotonic() - start < 3.5 or replies  # none of them waited for a deadline
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
        ask_more(0, "inception_queue_images", 0)
        assert [status for status, _ in replies] == [503, 503]
        assert min(seconds for _, seconds in replies) >= 3.9
    finally:
        subprocess.run(["kill", "-CONT", str(worker)], check=True)
    for thread in threads:
        thread.join()
    assert [status for status, _ in replies] == [503, 503, 200, 200]
    assert is_well(server, data)
