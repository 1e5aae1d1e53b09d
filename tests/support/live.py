"""Frames and pairings that tests of `matchrt live` write down: what a frame shows is a number."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from matchrt.live.frame import Frame
from matchrt.live.matching import View
from matchrt.runtime.matches import Matches
from support.matching import made_matches

SIDE = 64
BLACK = -1
_GRID = [(float(x), float(y)) for x in range(4, SIDE, 6) for y in range(4, SIDE, 6)]


def frame(index: int, scene: int, side: int = SIDE) -> Frame:
    """A frame that shows a scene; BLACK is nothing."""
    pixels = np.zeros((side, side, 3), np.uint8)
    if scene != BLACK:
        pixels[:, : side // 2] = 250
        pixels[0, 0] = scene
    return Frame(index, index / 25, time.perf_counter(), f"frame {index}", pixels)


class StubPairing:
    """Frames match if their scenes are neighbours: numbers that differ by `reach` at most."""

    def __init__(self, reach: int = 0) -> None:
        self.reach, self.prepared, self.matched = reach, 0, 0
        self._good = made_matches([(x, y, x, y, 0.9) for x, y in _GRID], SIDE).verify("homography")
        self._bad = made_matches([], SIDE).verify("homography")
        assert self._good.verdict == "match" and self._bad.verdict == "doubtful"

    def prepare(self, given: Frame) -> View:
        self.prepared += 1
        return View(given, None)  # type: ignore[arg-type]

    def match(self, first: View, second: View) -> Matches:
        self.matched += 1
        scenes = [int(view.frame.pixels[0, 0, 0]) for view in (first, second) if view.frame.pixels is not None]
        return self._good if abs(scenes[0] - scenes[1]) <= self.reach else self._bad


class ListFeed:
    """A feed of scenes, at once or at its own pace."""

    name = "a list"

    def __init__(self, scenes: Sequence[int], *, live: bool = False, fps: float = 25.0, pace: float = 0.0) -> None:
        self._scenes, self.live, self.fps, self._pace = scenes, live, fps, pace
        self.total: int | None = None if live else len(scenes)
        self.given, self.closed = 0, False

    def read(self) -> Frame | None:
        if self.given >= len(self._scenes):
            return None
        time.sleep(self._pace)
        self.given += 1
        return frame(self.given - 1, self._scenes[self.given - 1])

    def close(self) -> None:
        self.closed = True
