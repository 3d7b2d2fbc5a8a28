"""Servers as users start them, in processes of their own; and how tests talk to them."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import torch
from shapes import COLOURS

from inception.data.preprocess import Preprocess
from inception.nets.registry import build_network
from inception.weights.bundle import Bundle

TOKEN = "a token of many characters"
PATIENCE = 600.0
"""Seconds a start may take on a machine that is busy with other things."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Served:
    """A running server."""

    process: "subprocess.Popen[bytes]"
    url: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())

    def metric(self, name: str) -> float:
        """The sum of a metric's samples, whatever their labels."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} "))
        )

    def worker(self) -> int:
        """Process id of the one inference process."""
        children = subprocess.run(
            ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
        ).stdout.split("\n")
        pairs = [tuple(map(int, line.split())) for line in children if line.strip()]
        of_server = [pid for pid, parent in pairs if parent == self.process.pid]
        [worker] = [pid for pid, parent in pairs if parent in of_server]
        return worker

    def wait_for(self, event: str, seconds: float = PATIENCE, count: int = 1) -> dict[str, Any]:
        """The log line of the `count`-th such event."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [line for line in list(self.log) if line.get("event") == event]
            if len(found) >= count:
                return found[count - 1]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no event {event!r} in {self.log}")

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)


Serve = Callable[..., Served]


COMMAND = "from inception.cli.main import main; main()"
# Settings that are no options of the command line.
DIRECT = """
import json, sys
from inception.serve.logs import log_event, set_up_logs
from inception.serve.models import Source
from inception.serve.server import open_listener, run_server
from inception.serve.settings import Settings
settings = Settings(port=0, threads=1, **json.loads(sys.argv[2]))
set_up_logs("info")
listener = open_listener(settings)
log_event("listening", url=f"http://127.0.0.1:{listener.getsockname()[1]}/")
run_server([Source.parse(sys.argv[1])], settings, listener)
"""


def start_server(*arguments: object, wait: bool = True, **settings: object) -> Served:
    """`inception serve` with these arguments on a free port, or one bundle with these settings."""
    if settings:
        command = ["-c", DIRECT, str(arguments[0]), json.dumps(settings)]
    else:
        command = ["-c", COMMAND, "serve", *map(str, arguments), "--port", "0", "--threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, env=environment)
    served = Served(process)
    listening = threading.Event()

    def read_log() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            text = line.decode()
            served.log.append(json.loads(text) if text.startswith("{") else {"event": "text", "text": text})
            if served.log[-1]["event"] == "listening":
                served.url = served.log[-1]["url"]
                listening.set()
        listening.set()

    threading.Thread(target=read_log, daemon=True).start()
    try:
        assert listening.wait(PATIENCE)
        if wait:
            served.wait_for("ready")
    except BaseException:
        process.kill()
        raise
    return served


def make_bundle(seed: int = 5, **changes: Any) -> Bundle:
    """A tiny untrained GoogLeNet with both auxiliary heads, three classes and a threshold for `unknown`."""
    torch.manual_seed(seed)
    network = build_network("googlenet", num_classes=3, width=0.05, stem="small")
    torch.nn.init.normal_(network.fc.weight, std=0.1)
    return Bundle(
        network="googlenet",
        arguments=network.arguments,
        labels=tuple(COLOURS),
        preprocess=Preprocess(height=32, width=32),
        state_dict=network.state_dict(),
        **{"unknown_threshold": 0.9, "temperature": 1.5, **changes},
    )


def multipart(files: list[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    """A form body and its headers."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + b"--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}
