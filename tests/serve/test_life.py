"""A server's life: start, new versions, lost inference processes, the end."""

import contextlib
import dataclasses
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from servers import COMMAND, Serve, Served, make_bundle

from inception.weights.bundle import save_bundle

TRIALS = 2  # benchmarks/serving_trials.py makes a hundred of each


class Load:
    """Clients that ask without pause, each on a connection it keeps; what they got is counted.

    `lost` are requests that were sent on an established connection and never answered.
    """

    def __init__(self, server: Served, body: bytes, clients: int = 4) -> None:
        self._server, self._body = server, body
        self.codes: dict[int, int] = {}
        self.lost: list[str] = []
        self._lock, self._end = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def count(self) -> int:
        return sum(self.codes.values())

    def _client(self) -> None:
        while not self._end.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=120)
            try:
                connection.connect()
            except OSError:  # not accepted, so not lost
                time.sleep(0.02)
                continue
            with contextlib.closing(connection):
                self._ask_until_closed(connection)

    def _ask_until_closed(self, connection: http.client.HTTPConnection) -> None:
        while not self._end.is_set():
            try:
                connection.request("POST", "/classify", self._body)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.lost.append(repr(error))
                return
            with self._lock:
                self.codes[response.status] = self.codes.get(response.status, 0) + 1
            if response.will_close:
                return


def test_ready_only_after_warm_up(serve: Serve, bundle_path, pictures):
    server = serve(bundle_path, wait=False)
    assert server.ask("GET", "/v2/health/live").status == 200
    early = server.ask("GET", "/v2/health/ready")
    refused = server.ask("POST", "/classify", pictures[0].read_bytes())
    assert early.status == 503, "the server must not be warm so soon"
    assert (refused.status, int(refused.headers["retry-after"]) > 0) == (503, True)
    assert server.ask("GET", "/models").json()["models"] == [{"name": "shapes", "ready": False}]
    assert server.ask("GET", "/v2/models/shapes").status == 503
    server.wait_for("ready")
    assert server.ask("GET", "/v2/health/ready").status == 200
    assert server.ask("POST", "/classify", pictures[0].read_bytes()).status == 200


def test_sigterm_loses_no_accepted_request(serve: Serve, bundle_path, pictures):
    server = serve(bundle_path, drain_seconds=0.3)
    with Load(server, pictures[0].read_bytes()) as load:
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=60) == 0
    assert load.lost == []
    assert load.codes.keys() == {200}
    assert [line["event"] for line in server.log][-1] == "stopped"


def test_ctrl_c_of_a_terminal_ends_everything_in_order(serve: Serve, bundle_path, pictures):
    server = serve(bundle_path, drain_seconds=0.1)
    worker = server.worker()
    # A terminal's Ctrl-C reaches the inference process as well.
    os.kill(worker, signal.SIGINT)
    os.kill(worker, signal.SIGTERM)
    assert server.ask("POST", "/classify", pictures[0].read_bytes()).status == 200
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=60) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_inference_processes_end_with_a_killed_server(serve: Serve, bundle_path):
    server = serve(bundle_path)
    worker = server.worker()
    server.process.kill()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the inference process outlives its server")


def test_a_killed_inference_process_is_back_and_only_its_batch_fails(serve: Serve, bundle_path, pictures):
    server = serve(bundle_path, max_batch=2, batch_seconds=3.0)
    with Load(server, pictures[0].read_bytes(), clients=6) as load:
        for trial in range(TRIALS):
            time.sleep(0.3)
            failed = load.codes.get(503, 0)
            os.kill(server.worker(), signal.SIGKILL)
            start = time.monotonic()
            server.wait_for("inference process is back", count=trial + 1)
            assert time.monotonic() - start < 15  # under 1 s on a quiet machine
            time.sleep(0.2)
            assert load.codes.get(503, 0) - failed <= 2
    assert load.lost == []
    assert load.codes.keys() <= {200, 503}
    assert server.metric("inception_inference_process_losses_total") == TRIALS
    # One that hangs is replaced too.
    os.kill(server.worker(), signal.SIGSTOP)
    reply = server.ask("POST", "/classify", pictures[0].read_bytes())
    assert (reply.status, "retry-after" in reply.headers) == (503, True)
    server.wait_for("inference process is back", count=TRIALS + 1)
    assert server.ask("POST", "/classify", pictures[0].read_bytes()).status == 200


def test_a_new_version_is_taken_without_a_dropped_request(serve: Serve, pictures, tmp_path):
    path = tmp_path / "roses" / "bundle"
    save_bundle(make_bundle(1), path)
    server = serve(path, watch_seconds=0.2)
    first = server.ask("GET", "/v2/models/roses").json()["versions"][0]
    with Load(server, pictures[0].read_bytes()) as load:
        save_bundle(dataclasses.replace(make_bundle(2), labels=("a", "b", "c")), path)
        server.wait_for("model ready", count=2)
        time.sleep(0.3)
    assert load.lost == []
    assert load.codes.keys() == {200}
    metadata = server.ask("GET", "/v2/models/roses").json()
    assert metadata["labels"] == ["a", "b", "c"]
    assert first not in metadata["versions"]


def test_a_bad_version_is_refused_and_the_old_one_goes_on(serve: Serve, pictures, tmp_path):
    path = tmp_path / "roses"
    save_bundle(make_bundle(1), path)
    server = serve(path, drain_seconds=0.0)
    before = server.ask("POST", "/classify", pictures[0].read_bytes()).json()
    (path / "model.safetensors").write_bytes(b"damaged")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("request")
    server.process.send_signal(signal.SIGHUP)  # the same manifest: the same version
    network = make_bundle(3)
    broken = {name: value * float("nan") for name, value in network.state_dict.items()}
    save_bundle(dataclasses.replace(network, state_dict=broken), path)
    server.process.send_signal(signal.SIGHUP)
    error = server.wait_for("new version refused, the old one goes on")["error"]
    assert "not finite" in error
    os.kill(server.worker(), signal.SIGKILL)  # even now the old version comes back
    server.wait_for("inference process is back")
    after = server.ask("POST", "/classify", pictures[0].read_bytes()).json()
    assert after["version"] == before["version"]
    assert after["results"] == before["results"]
    assert server.ask("GET", "/v2/health/ready").status == 200
    save_bundle(make_bundle(4), path)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("model ready", count=2)
    assert server.ask("POST", "/classify", pictures[0].read_bytes()).json()["version"] != before["version"]


def resident_bytes(server: Served) -> int:
    """Memory of the server and its inference process (Linux)."""
    pages = [
        int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        for pid in (server.process.pid, server.worker())
    ]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_memory_stays_level_in_a_short_soak(serve: Serve, bundle_path, pictures):
    server, body = serve(bundle_path, max_batch=4), pictures[0].read_bytes()
    with Load(server, body) as load:
        for _ in range(2):  # caches fill
            assert server.ask("POST", "/explain?method=smoothgrad", body).status == 200
            time.sleep(1.0)
        before, answered = resident_bytes(server), load.count()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            assert server.ask("POST", "/explain?method=smoothgrad", body).status == 200
        growth = resident_bytes(server) - before
    assert load.lost == []
    assert load.codes.keys() == {200}
    assert load.count() > answered
    assert growth < 20e6


def test_overload_is_refused_and_work_goes_on(serve: Serve, bundle_path, pictures):
    server = serve(bundle_path, max_batch=2, max_queue=4, max_images=1)
    with Load(server, pictures[0].read_bytes(), clients=24) as load:
        time.sleep(2.5)
    assert load.lost == []
    assert load.codes.keys() == {200, 503}
    assert server.metric("inception_images_total") == load.codes[200]
    assert server.ask("POST", "/classify", pictures[0].read_bytes()).status == 200


def outcome(*arguments: object) -> tuple[int, list[str]]:
    """Exit code and standard error of a server that does not start."""
    command = [sys.executable, "-c", COMMAND, "serve", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("{")]


def test_a_bundle_that_cannot_be_used_ends_the_server_with_one_sentence(tmp_path):
    path = tmp_path / "roses"
    save_bundle(make_bundle(1), path)
    (path / "model.safetensors").write_bytes(b"damaged")
    code, lines = outcome(path, "--port", "0")
    assert code == 1
    assert lines[-1].startswith(f"inception: {path}: model.safetensors does not match its checksum")
    code, lines = outcome(tmp_path / "nowhere", "--port", "0")
    assert (code, lines[-1]) == (2, f"inception: there is no bundle at {tmp_path / 'nowhere'}")


def test_a_taken_port_is_one_sentence(bundle_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, lines = outcome(bundle_path, "--port", taken.getsockname()[1])
    assert code == 2
    assert len(lines) == 1
    assert "try another --port" in lines[0]
