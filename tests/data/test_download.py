"""Downloads from a local server that drops, lies, ignores and corrupts."""

import hashlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inception.data.download import download, matches
from inception.errors import DownloadError

CONTENT = random.Random(0).randbytes(1_500_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"

Answer = Callable[[BaseHTTPRequestHandler, int, int], None]


class Server:
    """Answers request number n with `answers[n]`, the last one for ever; remembers where each began."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [whole]
        self.ranges: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = len(server.ranges)
                server.ranges.append(self.headers["Range"])
                start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
                server.answers[min(number, len(server.answers) - 1)](self, start, number)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file.bin"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in (
        {"Content-Length": str(len(body))} | {k.replace("_", "-"): v for k, v in headers.items()}
    ).items():
        if value:
            handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def whole(handler: BaseHTTPRequestHandler, start: int, _: int) -> None:
    if start >= len(CONTENT):
        send(handler, 416, b"")
    elif start:
        send(handler, 206, CONTENT[start:], Content_Range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
    else:
        send(handler, 200, CONTENT)


def dropped(handler: BaseHTTPRequestHandler, start: int, _: int) -> None:
    rest = CONTENT[start:]
    status, content_range = (206, f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}") if start else (200, "")
    send(handler, status, rest[:400_000], Content_Length=str(len(rest)), Content_Range=content_range)


def without_ranges(handler: BaseHTTPRequestHandler, _start: int, _: int) -> None:
    send(handler, 200, CONTENT)


def without_length(handler: BaseHTTPRequestHandler, _start: int, _: int) -> None:
    send(handler, 200, CONTENT, Content_Length="")


def too_long(handler: BaseHTTPRequestHandler, _start: int, _: int) -> None:
    send(handler, 200, CONTENT + b"more", Content_Length="")


def corrupt(handler: BaseHTTPRequestHandler, _start: int, _: int) -> None:
    send(handler, 200, CONTENT[:1000] + b"?" + CONTENT[1001:])


def wrong_part(handler: BaseHTTPRequestHandler, start: int, _: int) -> None:
    if start:
        send(
            handler,
            206,
            CONTENT[start - 5 :],
            Content_Range=f"bytes {start - 5}-{len(CONTENT) - 1}/{len(CONTENT)}",
        )
    else:
        dropped(handler, start, 0)


def busy(handler: BaseHTTPRequestHandler, _start: int, _: int) -> None:
    send(handler, 503, b"later")


def missing(handler: BaseHTTPRequestHandler, _start: int, _: int) -> None:
    send(handler, 404, b"no")


def silent(handler: BaseHTTPRequestHandler, _start: int, _: int) -> None:
    handler.connection.settimeout(3)
    handler.connection.recv(1)


def get(server: Server, folder: Path, **options) -> bytes:
    target = folder / "deep" / "file.bin"
    options = {"checksum": SHA256, "size": len(CONTENT), "first_wait": 0.0} | options
    assert download(server.url, target, **options) == target
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]
    return target.read_bytes()


def fail(server: Server, folder: Path, message: str, **options) -> None:
    target = folder / "file.bin"
    options = {"checksum": SHA256, "size": len(CONTENT), "first_wait": 0.0} | options
    with pytest.raises(DownloadError, match=message) as caught:
        download(options.pop("url", server.url), target, **options)
    assert not target.exists()
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("checksum", [SHA256, MD5, SHA256.upper().replace("SHA256", "sha256")])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_file_arrives(server, tmp_path, checksum, size):
    seen: list[tuple[int, int | None]] = []
    assert (
        get(server, tmp_path, checksum=checksum, size=size, progress=lambda *at: seen.append(at)) == CONTENT
    )
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert (tmp_path / "deep" / "file.bin").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_a_file_that_is_there_is_not_fetched_again(server, tmp_path):
    get(server, tmp_path)
    get(server, tmp_path)
    assert len(server.ranges) == 1
    (tmp_path / "deep" / "file.bin").write_bytes(b"damaged")
    assert get(server, tmp_path) == CONTENT


def test_a_dropped_connection_is_continued_where_it_broke(server, tmp_path):
    server.answers = [dropped, dropped, whole]
    assert get(server, tmp_path) == CONTENT
    assert server.ranges == [None, "bytes=400000-", "bytes=800000-"]


def test_a_later_call_continues_an_earlier_one(server, tmp_path):
    server.answers = [dropped]
    fail(server, tmp_path / "deep", "the connection ended after 400,000 of 1,500,000 bytes", attempts=1)
    server.answers = [whole]
    assert get(server, tmp_path) == CONTENT
    assert server.ranges[-1] == "bytes=400000-"


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.answers = [dropped, without_ranges]
    assert get(server, tmp_path) == CONTENT


def test_a_server_that_continues_elsewhere_is_not_believed(server, tmp_path):
    server.answers = [dropped, wrong_part, whole]
    assert get(server, tmp_path) == CONTENT
    assert server.ranges == [None, "bytes=400000-", "bytes=400000-"]


@pytest.mark.parametrize("leftover", [CONTENT, CONTENT + b"x", b"unrelated"])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_any_leftover_ends_well(server, tmp_path, leftover, size):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file.bin.part").write_bytes(leftover)
    assert get(server, tmp_path, size=size) == CONTENT


def test_a_body_without_length_is_checked_against_the_expected_size(server, tmp_path):
    server.answers = [without_length]
    assert get(server, tmp_path) == CONTENT
    server.answers = [too_long]
    fail(server, tmp_path, "more than the expected 1,500,000 bytes", attempts=2)
    fail(server, tmp_path, "does not match", attempts=2, size=None)


def test_corrupt_bytes_are_fetched_anew_and_never_kept(server, tmp_path):
    server.answers = [corrupt, whole]
    assert get(server, tmp_path) == CONTENT
    server.answers = [corrupt]
    fail(server, tmp_path, "does not match sha256:", attempts=2)
    assert not (tmp_path / "file.bin.part").exists()


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(server, tmp_path):
    server.answers = [busy, busy, whole]
    assert get(server, tmp_path) == CONTENT
    server.answers, server.ranges = [missing], []
    fail(server, tmp_path, "the server answered 404")
    assert len(server.ranges) == 1


def test_waits_double_between_attempts(server, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    server.answers = [busy]
    fail(server, tmp_path, "answered 503", attempts=4, first_wait=1.0)
    assert waits == [1.0, 2.0, 4.0]


def test_a_silent_server_times_out(server, tmp_path):
    server.answers = [silent]
    fail(server, tmp_path, "timed out", attempts=1, timeout=0.2)


def test_no_server_at_all(tmp_path):
    with pytest.raises(DownloadError, match="put the file at"):
        download("http://127.0.0.1:9/file.bin", tmp_path / "f", checksum=SHA256, attempts=1)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "/etc/passwd", "data:,x"])
def test_only_http_is_fetched(server, tmp_path, url):
    fail(server, tmp_path, "neither http nor https", url=url)


def test_a_redirect_to_another_scheme_is_refused(server, tmp_path):
    def redirect(handler: BaseHTTPRequestHandler, _start: int, _: int) -> None:
        send(handler, 302, b"", Location="file:///etc/passwd")

    server.answers = [redirect]
    fail(server, tmp_path, "could not be downloaded", attempts=1)


def test_a_redirect_to_another_address_is_followed(server, tmp_path):
    def redirect(handler: BaseHTTPRequestHandler, _start: int, _: int) -> None:
        send(handler, 302, b"", Location=server.url + "?there")

    server.answers = [redirect, whole]
    assert get(server, tmp_path) == CONTENT


@pytest.mark.parametrize("checksum", ["", "sha256:", "crc32:00", "d41d8cd98f00b204e9800998ecf8427e"])
def test_a_checksum_is_required(server, tmp_path, checksum):
    fail(server, tmp_path, "must be sha256", checksum=checksum)


def test_an_impossible_destination_is_named(server, tmp_path):
    (tmp_path / "occupied").write_bytes(b"")
    with pytest.raises(DownloadError, match="cannot be written"):
        download(server.url, tmp_path / "occupied" / "file.bin", checksum=SHA256)


def test_checksums(tmp_path):
    (tmp_path / "f").write_bytes(CONTENT)
    assert matches(tmp_path / "f", SHA256)
    assert matches(tmp_path / "f", MD5)
    assert not matches(tmp_path / "f", SHA256[:-1] + "_")
