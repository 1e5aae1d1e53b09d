"""How patient a download is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Told what is done at the moment, and how many bytes of how many are there; None if their number is not known.
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Settings:
    """Limits of a download. Times are seconds.

    connect_timeout: for a connection to come about.
    read_timeout: without a single byte.
    tries: tries of one address in a row that bring no new byte.
    all_tries: tries of one address altogether.
    first_wait: before the second try; each further wait is twice as long.
    longest_wait: of the waits between tries.
    longest_retry_after: how long a server may ask to wait.
    slow_after: time in which a connection must bring at least `slow_bytes`, or it is cut.
    slow_bytes: see `slow_after`.
    redirects: that one request may follow.
    busy_after: how long another process that downloads the same file may bring no byte before it is not waited for.
    spare_bytes: of the disk that stay free.
    largest: bytes of a file whose size nobody said.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 20.0
    tries: int = 4
    all_tries: int = 100
    first_wait: float = 1.0
    longest_wait: float = 30.0
    longest_retry_after: float = 120.0
    slow_after: float = 60.0
    slow_bytes: int = 60_000
    redirects: int = 10
    busy_after: float = 120.0
    spare_bytes: int = 16_000_000
    largest: int = 8_000_000_000

    def wait(self, failures: int) -> float:
        """Seconds before the next try, after so many failures in a row."""
        return float(min(self.first_wait * 2 ** max(failures - 1, 0), self.longest_wait))


SETTINGS = Settings()
