"""How the pairs of a folder's images are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from matchrt.errors import MatchRTError

How = Literal["exhaustive", "window", "gps", "time", "retrieval"]
HOWS: tuple[How, ...] = get_args(How)


@dataclass(frozen=True)
class PairingOptions:
    """How the pairs are chosen. What a way has no use for has no effect.

    how: `exhaustive` (all pairs), `window` (each image with those that follow it by name), `gps` and `time` (each image
        with those that were taken nearby, or shortly before or after, as EXIF says), `retrieval` (each image with those
        that look most alike).
    neighbours: for `gps`, `time` and `retrieval`, how many others each image is paired with; more if others chose it.
    window: for `window`, how many of the next images each image is paired with.
    loop: for `window`, whether the first images follow the last one.
    max_distance: for `gps`, metres between two images of a pair at most.
    max_seconds: for `time`, seconds between two images of a pair at most; None for any.
    min_similarity: for `retrieval`, the least similarity of two images of a pair, -1..1.
    Error: pairs-option for a number out of range.
    """

    how: How = "exhaustive"
    neighbours: int = 20
    window: int = 10
    loop: bool = False
    max_distance: float = 100.0
    max_seconds: float | None = None
    min_similarity: float = -1.0

    def __post_init__(self) -> None:
        ranges = {
            "--neighbours": self.neighbours >= 1,
            "--window": self.window >= 1,
            "--max-distance": self.max_distance > 0,
            "--max-seconds": self.max_seconds is None or self.max_seconds >= 0,
            "--min-similarity": -1 <= self.min_similarity <= 1,
        }
        wrong = [name for name, right in ranges.items() if not right]
        if wrong:
            raise MatchRTError(
                "pairs-option", f"{wrong[0]} is out of range.", "Use a positive number; --min-similarity is in -1..1."
            )
