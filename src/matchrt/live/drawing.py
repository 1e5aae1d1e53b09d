"""Pictures of a video's frames: keyframe and frame side by side, with matches, outline or pose, and what is known."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from matchrt.live.frame import Frame
from matchrt.live.keyframes import Step
from matchrt.live.motion import rotation_degrees
from matchrt.runtime.decoding.values import UInt8Array
from matchrt.runtime.draw import draw_matches
from matchrt.runtime.match_data import ImageRef, Provenance
from matchrt.runtime.matches import Matches

_STRIP, _BACKGROUND, _TEXT = 26, (24, 24, 27), (228, 228, 231)
_COLORS = {"tracked": (74, 222, 128), "keyframe": (96, 165, 250), "lost": (250, 204, 21)}
_NOTHING = (239, 68, 68)
_NO_POINTS = np.zeros((0, 2), np.float32)


@dataclass(frozen=True)
class Painter:
    """Makes pictures, all of one size as long as the frames are of one size.

    model: name of the network, for pictures without matches.
    height: pixels that frames are scaled down to.
    lines: the largest number of matches that are drawn.
    """

    model: str
    height: int = 360
    lines: int = 100

    def paint(self, step: Step, keyframe: Frame | None) -> UInt8Array | None:
        """The picture of a step, uint8 RGB [h, w, 3]; None if there is nothing to show yet.

        keyframe: what is shown beside a frame that was not matched. Errors: draw-option.
        """
        first, second = step.key or keyframe or step.frame, step.frame
        if second.pixels is None or first.pixels is None:
            return None
        matches = step.matches if step.matches is not None else self._unmatched(first, second)
        picture = draw_matches(
            first.pixels, second.pixels, matches, max_lines=self.lines, max_height=self.height, outline=True
        )
        return np.vstack([_strip(picture.shape[1], step), picture])

    def _unmatched(self, first: Frame, second: Frame) -> Matches:
        refs = [ImageRef(frame.name, *_size(frame)) for frame in (first, second)]
        origin = Provenance(self.model, "", "", "", "", _size(first), _size(second))
        return Matches(_NO_POINTS, _NO_POINTS, np.zeros(0, np.float32), refs[0], refs[1], {}, origin)


def _size(frame: Frame) -> tuple[int, int]:
    assert frame.pixels is not None
    return int(frame.pixels.shape[0]), int(frame.pixels.shape[1])


def _strip(width: int, step: Step) -> UInt8Array:
    """The line of text above a picture."""
    strip = np.full((_STRIP, width, 3), _BACKGROUND, np.uint8)
    place = (8, _STRIP - 8)
    for text, color in ((step.status.upper(), _COLORS.get(step.status, _NOTHING)), (_words(step), _TEXT)):
        cv2.putText(strip, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)
        place = (place[0] + cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0] + 12, place[1])
    return strip


def _words(step: Step) -> str:
    words = [f"frame {step.frame.index}", f"{step.frame.time:.2f} s"]
    if step.key is not None:
        words.append(f"keyframe {step.key.index}")
    if step.cut is not None:
        words.append(f"CUT at frame {step.cut}")
    found = None if step.matches is None else step.matches.geometry
    if found is not None and found.rotation is not None and found.translation is not None:
        x, y, z = found.translation
        words.append(f"turned {rotation_degrees(found.rotation):.1f} deg, moved along ({x:.2f}, {y:.2f}, {z:.2f})")
    return "  ".join(words)
