"""One frame of a video, and what gives frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from matchrt.errors import MatchRTError
from matchrt.runtime.decoding.values import UInt8Array


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    index: its number in the source, from 0; frames that were dropped count.
    time: seconds from the start of the source.
    arrived: when it was there, in seconds of `time.perf_counter`.
    name: what messages and matches call it.
    pixels: uint8 RGB [H, W, 3]; None if it could not be read.
    problem: why it could not be read; None if it could.
    """

    index: int
    time: float
    arrived: float
    name: str
    pixels: UInt8Array | None
    problem: MatchRTError | None = None


class Feed(Protocol):
    """What gives frame after frame, in order."""

    @property
    def name(self) -> str:
        """The source in words, without passwords."""
        ...

    @property
    def live(self) -> bool:
        """Whether frames come whether they are read or not, as from a camera."""
        ...

    @property
    def fps(self) -> float:
        """Frames a second that the source says it has."""
        ...

    @property
    def total(self) -> int | None:
        """How many frames it has, as it says; None if it does not know."""
        ...

    def read(self) -> Frame | None:
        """Waits for the next frame; None at the end. Errors: live-ended."""
        ...

    def close(self) -> None:
        """Frees what it holds. Raises nothing."""
        ...
