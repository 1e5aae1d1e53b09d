"""Frames to matches, with the features of each frame computed once where the engine allows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.live.frame import Frame
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.matches import Matches
from matchrt.runtime.preprocess import PreparedImage
from matchrt.runtime.split.features import Features

# Errors of an engine that does not come in two parts, which still matches whole pairs.
_WHOLE_ONLY = ("split-missing", "split-graph")


@dataclass(frozen=True, eq=False)
class View:
    """A frame that is ready to be matched.

    frame: the frame, with its pixels.
    ready: its features, or the prepared image where the engine matches whole pairs only.
    """

    frame: Frame
    ready: Features | PreparedImage


class Pairing(Protocol):
    """What matches frames."""

    def prepare(self, frame: Frame) -> View:
        """Makes a frame ready, once for all its pairs. Errors: those of `Matcher.features`."""
        ...

    def match(self, first: View, second: View) -> Matches:
        """Matches two frames and judges the pair. Errors: those of `Matcher.match_features`."""
        ...


@dataclass(frozen=True, eq=False)
class Camera:
    """How a pair's geometry is estimated.

    matrix: intrinsics [3, 3] in pixels of the frames, for the pose (essential matrix); None for a homography.
    threshold: inlier threshold in pixels; None for the default.
    """

    matrix: npt.NDArray[np.float64] | None = None
    threshold: float | None = None

    def judged(self, matches: Matches) -> Matches:
        """The matches with geometry and verdict. Errors: intrinsics-invalid, geometry-input."""
        if self.matrix is None:
            return matches.verify("homography", threshold=self.threshold)
        return matches.verify("essential", threshold=self.threshold, K0=self.matrix, K1=self.matrix)


class FramePairing:
    """Matches frames by a matcher.

    whole_pairs: why features are not computed once; None if they are, or before the first frame.
    """

    def __init__(self, matcher: Matcher, camera: Camera | None = None) -> None:
        self._matcher, self._camera = matcher, camera or Camera()
        self.whole_pairs: str | None = None

    def prepare(self, frame: Frame) -> View:
        """See `Pairing`. Errors: image-* of `as_image`, fit-size, frames-size; size-memory, session-*."""
        if self.whole_pairs is None:
            try:
                return View(frame, self._matcher.features(frame.pixels, frame.name))
            except MatchRTError as error:
                if error.code not in _WHOLE_ONLY:
                    raise
                self.whole_pairs = error.message
        return View(frame, self._matcher.prepare_image(frame.pixels, frame.name))

    def match(self, first: View, second: View) -> Matches:
        """See `Pairing`. Errors: size-memory, session-*, intrinsics-invalid, geometry-input."""
        if isinstance(first.ready, Features) and isinstance(second.ready, Features):
            matches = self._matcher.match_features(first.ready, second.ready)
        else:
            matches = self._matcher.match(first.ready, second.ready)
        return self._camera.judged(matches)
