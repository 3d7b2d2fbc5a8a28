"""Hostile requests, and an honest client who meanwhile asks once a second."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from PIL import Image
from servers import Served

INFER = "/v2/models/shapes/infer"
LENGTH = "Inference-Header-Content-Length"


@dataclass
class Honest:
    """Asks for health and for an answer, each on its own thread, until it is stopped.

    Attributes:
        health, answers: how long each request took, in seconds.
        refused: the statuses other than 200.
    """

    server: Served
    picture: bytes
    pause: float = 1.0
    health: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def _ask(
        self, found: list[float], method: str, path: str, body: bytes | None, end: threading.Event
    ) -> None:
        while True:
            start = time.monotonic()
            reply = self.server.ask(method, path, body)
            found.append(time.monotonic() - start)
            if reply.status != 200:
                self.refused.append(reply.status)
            if end.wait(max(0.0, self.pause - found[-1])):
                return

    @contextlib.contextmanager
    def asking(self) -> Iterator["Honest"]:
        """Ask while the context lasts."""
        end = threading.Event()
        asks: list[tuple[object, ...]] = [
            (self.health, "GET", "/v2/health/live", None, end),
            (self.answers, "POST", "/classify", self.picture, end),
        ]
        threads = [threading.Thread(target=self._ask, args=ask) for ask in asks]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            end.set()
            for thread in threads:
                thread.join()


def binary(datatype: str, shape: list[int], raw: bytes) -> tuple[str, bytes, dict[str, str]]:
    """Path, body and headers of an inference request in the binary form."""
    sizes = f'"parameters":{{"binary_data_size":{len(raw)}}}'
    head = f'{{"inputs":[{{"name":"images","datatype":"{datatype}","shape":{shape},{sizes}}}]}}'.encode()
    return INFER, head + raw, {LENGTH: str(len(head))}


def in_json(data: bytes, name: bytes = b"data") -> tuple[str, bytes, dict[str, str]]:
    """An inference request whose `data`, or another key, holds this JSON."""
    rest = b'"name":"images","datatype":"UINT8","shape":[1,3,32,32]'
    return INFER, b'{"inputs":[{' + rest + b',"' + name + b'":' + data + b"}]}", {}


def empty_texts(size: int, images: int = 32) -> tuple[str, bytes, dict[str, str]]:
    """BYTES of `size` zeros, each four of which are an element of no bytes."""
    return binary("BYTES", [images], bytes(size))


def repeated(piece: bytes, size: int) -> bytes:
    """A JSON list of about `size` bytes that holds `piece` again and again."""
    return b"[" + b",".join([piece] * (size // (len(piece) + 1) - 1)) + b"]"


def progressive(side: int, repeats: int) -> bytes:
    """A grey progressive JPEG whose last scan comes `repeats` times."""
    stream = BytesIO()
    Image.new("L", (side, side), 99).save(stream, "JPEG", progressive=True, quality=5)
    data = stream.getvalue()
    scan = data.rindex(b"\xff\xda")
    return data[:scan] + data[scan:-2] * repeats + data[-2:]
