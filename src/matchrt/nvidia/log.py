"""TensorRT's log messages. The errors are kept, so that our errors can quote the vendor's own words."""

from __future__ import annotations

import logging
from typing import Any

LOGGER = logging.getLogger("matchrt.tensorrt")
_KEPT = 50
_LEVELS = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


def make_log(trt: Any) -> Any:
    """A TensorRT logger: passes messages to Python's `matchrt.tensorrt` and keeps the last errors in `.errors`."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            level = int(severity)
            if level <= int(trt.ILogger.Severity.ERROR):
                self.errors = [*self.errors[-_KEPT:], message]
            LOGGER.log(logging.DEBUG if level <= 1 else _LEVELS[min(level, 4)], message)

        def take_errors(self) -> str:
            """The errors since the last call, as one line."""
            errors, self.errors = self.errors, []
            return "; ".join(dict.fromkeys(error.strip() for error in errors)) or "no reason given"

    return Log()
