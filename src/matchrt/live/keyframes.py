"""Which frame the others are matched to, and where the video is cut.

A frame is `tracked` if it and the keyframe are judged a match. If the verdict falls, the frame is matched to the last
frame that was tracked: if that holds, the camera has only moved on, and that frame is the new keyframe. If it does not
hold either, the frame becomes a candidate, and frames are `lost` until one matches the old keyframe again (then there
was a disturbance) or the candidate (then there was a cut, at the candidate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from matchrt.errors import MatchRTError
from matchrt.live.blank import Blank, blank_kind
from matchrt.live.frame import Frame
from matchrt.live.matching import Pairing, View
from matchrt.runtime.matches import Matches

Status = Literal["keyframe", "tracked", "lost", "black", "blank", "unreadable"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class Policy:
    """When the keyframe is renewed.

    renewed: whether it is renewed if the verdict falls. If not, it stays, and cuts are not looked for.
    every: after how many frames it is renewed as well; None for never.
    """

    renewed: bool = True
    every: int | None = None

    @classmethod
    def parse(cls, text: str) -> Policy:
        """`first`, `auto` or a number of frames. Error: live-keyframe."""
        if text == "first":
            return cls(renewed=False)
        if text == "auto":
            return cls()
        if text.isascii() and text.isdigit() and int(text[:9]) > 0:
            return cls(every=int(text[:9]))
        raise MatchRTError("live-keyframe", f"'{text[:40]}' says no keyframe.", "Use first, auto or a number from 1.")


@dataclass(frozen=True, eq=False)
class Step:
    """What one frame gave.

    status: keyframe (the first one, matched to none), tracked, lost, black, blank or unreadable.
    frame: the frame.
    key: the keyframe that it was matched to; None if it was not matched.
    matches: from the keyframe to the frame, with geometry and verdict; None if it was not matched.
    renewed: whether another keyframe than before holds from now on.
    cut: number of the frame at which a cut was, which this frame has shown; None for no cut.
    """

    status: Status
    frame: Frame
    key: Frame | None = None
    matches: Matches | None = None
    renewed: bool = False
    cut: int | None = None


class Tracker:
    """Matches frame after frame to the keyframe. It keeps three frames with their features at most.

    pairing: what matches. policy: when the keyframe is renewed.
    """

    def __init__(self, pairing: Pairing, policy: Policy | None = None) -> None:
        self._pairing, self._policy = pairing, policy or Policy()
        self._key: View | None = None
        self._last: View | None = None
        self._candidate: View | None = None

    @property
    def keyframe(self) -> Frame | None:
        """The keyframe that holds; None before the first. Raises nothing."""
        return None if self._key is None else self._key.frame

    def step(self, frame: Frame) -> Step:
        """Takes the next frame. Errors: those of the pairing."""
        if frame.pixels is None:
            return Step("unreadable", frame)
        nothing: Blank | None = blank_kind(frame.pixels)
        if nothing is not None:
            return Step(nothing, frame)
        view = self._pairing.prepare(frame)
        if self._key is None:
            self._key = self._last = view
            return Step("keyframe", frame, renewed=True)
        return self._matched(self._key, view)

    def _matched(self, key: View, view: View) -> Step:
        matches = self._pairing.match(key, view)
        if _holds(matches):
            return self._tracked(key, view, matches)
        if not self._policy.renewed:
            return Step("lost", view.frame, key.frame, matches)
        if self._last is not None and self._last is not key:
            again = self._pairing.match(self._last, view)
            if _holds(again):
                return self._tracked(self._last, view, again)
        if self._candidate is not None:
            new = self._pairing.match(self._candidate, view)
            if _holds(new):
                return self._tracked(self._candidate, view, new, cut=self._candidate.frame.index)
        self._candidate = view
        return Step("lost", view.frame, key.frame, matches)

    def _tracked(self, key: View, view: View, matches: Matches, cut: int | None = None) -> Step:
        every = self._policy.every
        due = every is not None and view.frame.index - key.frame.index >= every
        renewed = due or key is not self._key
        self._key, self._last, self._candidate = view if due else key, view, None
        return Step("tracked", view.frame, key.frame, matches, renewed, cut)


def _holds(matches: Matches) -> bool:
    return matches.verdict == "match"
