"""Stopping a run in good order: the first Ctrl-C or SIGTERM asks, the second insists."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from inception.errors import InceptionError


class Interrupted(InceptionError):  # noqa: N818 - not an error: somebody wanted it
    """The run was asked to stop; everything up to now is saved. Exits with 130, as after Ctrl-C."""

    exit_code = 130


class StopRequest:
    """Set once somebody has asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request that the loop answers between two steps.

    A second signal acts as it would have without this. Outside the main thread nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in signals}

    def handle(number: int, frame: FrameType | None) -> None:
        request.requested = True
        signal.signal(number, previous[signal.Signals(number)])

    for number in signals:
        signal.signal(number, handle)
    try:
        yield request
    finally:
        for number in signals:
            signal.signal(number, previous[number])
