"""How many cores this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The number of logical cores that this process may use. Raises nothing."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
