"""Structured logs: one JSON object a line on standard error."""

import json
import logging
import sys
import time
from typing import Any

LOG = logging.getLogger("inception.serve")


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
    """Send the server's and uvicorn's records to standard error as JSON.

    Args:
        level: `debug`, `info`, `warning` or `error`; requests are logged at `info`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name, lowest in (("inception.serve", level.upper()), ("uvicorn.error", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(lowest)
        logger.propagate = False
