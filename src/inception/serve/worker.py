"""The inference process: loads one bundle, warms up, answers batches until the server closes the channel.

Images are decoded here too, so that a decoder that crashes takes no other request with it. While one batch is
computed, the next is received and decoded.
"""

import contextlib
import os
import queue
import signal
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from inception.errors import InceptionError, UsageError
from inception.runtime.loading import load
from inception.serve import wire
from inception.serve.answers import Answer, Answerer, Ask
from inception.serve.logs import log_standard_error, set_up_logs
from inception.weights.manifest import require_one_label

DECODING_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Order:
    """What an inference process is started with; fields as in `Settings`."""

    bundle: str
    device: str
    precision: str
    threads: int | None
    max_pixels: int
    max_batch: int
    explain: bool


@dataclass(frozen=True)
class Batch:
    """A batch whose images are being decoded."""

    number: int
    asks: list[Ask]
    opened: list[Future[tuple[Tensor | Answer, float]]]


def run_worker(channel: socket.socket, order: Order) -> None:
    """Entry point of the process; returns when the channel is closed."""
    # Ctrl-C and a supervisor's SIGTERM reach every process; the server decides when this one ends.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    set_up_logs("warning")
    log_standard_error()
    with channel, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        try:
            answerer = _load(order)
        except InceptionError as error:
            usage = isinstance(error, UsageError)
            channel.sendall(wire.pack({"event": "failed", "usage": usage, "error": str(error)}))
            return
        except Exception as error:  # the server reports it; a traceback here would only be noise
            text = f"the bundle cannot be used: {type(error).__name__}: {error}"
            channel.sendall(wire.pack({"event": "failed", "usage": False, "error": text}))
            return
        channel.sendall(wire.pack({"event": "ready", **answerer.facts()}))
        _answer_batches(channel, answerer)


def _load(order: Order) -> Answerer:
    if order.threads is not None:
        torch.set_num_threads(order.threads)
    classifier = load(order.bundle, order.device, order.precision)
    require_one_label(classifier.thresholds, "inception serve")
    answerer = Answerer(classifier, order.max_pixels, order.explain)
    answerer.warm_up(order.max_batch)
    return answerer


def _answer_batches(channel: socket.socket, answerer: Answerer) -> None:
    batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(channel, answerer, batches), daemon=True).start()
    while (batch := batches.get()) is not None:
        channel.sendall(_answer(batch, answerer))


def _receive(channel: socket.socket, answerer: Answerer, batches: "queue.SimpleQueue[Batch | None]") -> None:
    with channel.makefile("rb") as stream, ThreadPoolExecutor(DECODING_THREADS) as pool:
        while (received := wire.receive_blocking(stream)) is not None:
            message, payloads = received
            asks = [Ask.from_message(values) for values in message["asks"]]
            opened = [
                pool.submit(_open, answerer, ask, payload)
                for ask, payload in zip(asks, payloads, strict=True)
            ]
            batches.put(Batch(message["batch"], asks, opened))
        batches.put(None)


def _open(answerer: Answerer, ask: Ask, payload: bytes) -> tuple[Tensor | Answer, float]:
    start = time.perf_counter()
    return answerer.open(ask, payload), time.perf_counter() - start


def _answer(batch: Batch, answerer: Answerer) -> bytes:
    try:
        opened, seconds = zip(*(future.result() for future in batch.opened), strict=True)
        start = time.perf_counter()
        answers = answerer.answer(batch.asks, opened)
        timing = {"decoding_seconds": sum(seconds), "inference_seconds": time.perf_counter() - start}
        values = [answer.values for answer in answers]
        message = {"event": "answers", "batch": batch.number, "answers": values, **timing}
        return wire.pack(message, [answer.rows for answer in answers])
    except Exception as error:  # one failed batch must not end the process
        return wire.pack(
            {"event": "error", "batch": batch.number, "error": f"{type(error).__name__}: {error}"}
        )
