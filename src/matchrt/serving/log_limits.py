"""A limit on what strangers can make the log say: of equal messages only the first few in a minute are written."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

_SECONDS = 60.0
_FIRST = 5
# Kinds of messages that are remembered.
_KINDS = 200


class FirstFew(logging.Filter):
    """Lets the first few messages of a kind in a minute through. Messages of a kind differ in their values only."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._since: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        kind = (record.name, record.levelno, str(record.msg)[:200])
        now = time.monotonic()
        with self._lock:
            since, count = self._since.get(kind, (now, 0))
            if now - since > _SECONDS:
                if count > _FIRST:
                    record.msg = f"{record.msg} (and {count - _FIRST} more like it in the last {now - since:.0f} s)"
                since, count = now, 0
            if len(self._since) >= _KINDS:
                self._since.clear()
            self._since[kind] = (since, count + 1)
            return count < _FIRST


def limit_logs(names: Iterable[str]) -> None:
    """Limits the loggers of those names. Raises nothing."""
    shared = FirstFew()
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(entry, FirstFew) for entry in logger.filters):
            logger.addFilter(shared)
