"""How many connections a process may keep, given its descriptors."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

# Of HTTP, and of gRPC, whose connections cost less and cannot be closed by age.
_HTTP, _GRPC = 512, 4096
# Descriptors for everything else: listeners, pipes of worker processes, files.
_RESERVED = 32
_LEAST = 4


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections of each protocol are kept at most."""

    http: int
    grpc: int


def connection_limits() -> ConnectionLimits:
    """The limits for this process: the usual ones, or fewer where it may open few descriptors. Raises nothing."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return ConnectionLimits(_HTTP, _GRPC)
    try:
        used = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:  # no Linux
        used = 64
    free = max(allowed - used - _RESERVED, 2 * _LEAST)
    http = max(min(_HTTP, free * 2 // 3), _LEAST)
    return ConnectionLimits(http, max(min(_GRPC, free - http), _LEAST))
