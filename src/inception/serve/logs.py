"""Structured logs: one JSON object a line on standard error."""

import json
import logging
import os
import sys
import threading
import time
from types import TracebackType
from typing import Any

LOG = logging.getLogger("inception.serve")
_MAX_TEXT = 2000


class JsonFormatter(logging.Formatter):
    """Time (UTC), level, event, and the record's `fields`; a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; what clients sent is escaped by JSON and cannot break it."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        values: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values)


def log_event(event: str, level: str = "info", **fields: Any) -> None:
    """One line in the log: what happened, and JSON-safe details."""
    LOG.log(logging.getLevelNamesMapping()[level.upper()], event, extra={"fields": fields})


def set_up_logs(level: str) -> None:
    """Send records of server and libraries, warnings and uncaught errors to standard error as JSON.

    Args:
        level: `debug`, `info`, `warning` or `error`; requests are logged at `info`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name, lowest in (("", "WARNING"), ("inception.serve", level.upper()), ("uvicorn.error", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(lowest)
        logger.propagate = False
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addFilter(_without_source)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda hooked: _log_uncaught(
        hooked.exc_type, hooked.exc_value, hooked.exc_traceback
    )


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of uvicorn says more than the line of its request does."""
    return record.msg != "Invalid HTTP request received."


def _without_source(record: logging.LogRecord) -> bool:
    record.fields, record.msg, record.args = {"warning": record.getMessage().strip()}, "warning", ()
    return True


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    LOG.error("uncaught error", exc_info=(kind, error or kind(), trace))


def log_standard_error() -> None:
    """Let what libraries print on standard error, also those in C, become lines of the log.

    A decoder may print while it holds Python's lock: the pipe never blocks, and drops what is too much.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    log = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(writing, 2)
    os.close(writing)
    for handler in LOG.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(log)
    threading.Thread(target=_log_lines, args=(reading,), name="standard error", daemon=True).start()


def _log_lines(descriptor: int) -> None:
    with os.fdopen(descriptor, errors="replace") as stream:
        for line in stream:
            if text := line.strip():
                log_event("printed", "warning", text=text[:_MAX_TEXT])
