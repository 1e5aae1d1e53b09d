"""Videos whose motion is known, made of photographs: views of a camera that moves, with cuts and black frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from matchrt.runtime.bundled import photographs_folder

Picture = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]
FPS = 25.0


@dataclass(frozen=True)
class MadeVideo:
    """What is known of a video.

    path: the file. size: (width, height). views: for each frame, the homography from its photograph to the frame; None
    for a black one. scenes: for each frame, the number of its photograph. cuts: the frames that begin another scene.
    black: the black frames.
    """

    path: Path
    size: tuple[int, int]
    views: tuple[Matrix | None, ...]
    scenes: tuple[int, ...]
    cuts: tuple[int, ...]
    black: tuple[int, ...]

    def between(self, first: int, second: int) -> Matrix:
        """The homography from a frame to another one of the same scene."""
        from_view, to_view = self.views[first], self.views[second]
        assert from_view is not None and to_view is not None and self.scenes[first] == self.scenes[second]
        return to_view @ np.linalg.inv(from_view)

    def corner_error(self, found: npt.ArrayLike, first: int, second: int) -> float:
        """How far a homography puts the corners of a frame from where they are, in pixels: the mean of the four."""
        width, height = self.size
        corners = np.array([[(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)]], np.float64)
        true = cv2.perspectiveTransform(corners, self.between(first, second))
        return float(
            np.linalg.norm(cv2.perspectiveTransform(corners, np.asarray(found, np.float64)) - true, axis=2).mean()
        )


def two_scenes() -> list[Picture]:
    """Two parts of the package's photograph, enlarged, that have nothing in common: BGR."""
    whole = cv2.imread(str(photographs_folder() / "cup_0.jpg"))
    half = whole.shape[1] // 2
    return [
        cv2.resize(part, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for part in (whole[:, :half], whole[:, half:])
    ]


def make_video(
    path: Path,
    frames: int,
    size: tuple[int, int],
    photographs: Sequence[Picture] | None = None,
    black: Sequence[int] = (),
    motion: float = 1.0,
) -> MadeVideo:
    """Writes a video of MP4 (mp4v) or AVI (MJPG) and says what is in it.

    frames: how many; the photographs get equal parts of them. size: (width, height). black: numbers of black frames.
    motion: how much of the usual motion there is.
    """
    photographs = photographs or two_scenes()
    each = math.ceil(frames / len(photographs))
    code = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, FPS, size)
    assert writer.isOpened()
    views: list[Matrix | None] = []
    for index in range(frames):
        photograph = photographs[index // each]
        view = _view(photograph, size, (index % each) / max(each - 1, 1), motion)
        dark = index in black
        picture = (
            np.zeros((size[1], size[0], 3), np.uint8)
            if dark
            else cv2.warpPerspective(photograph, view, size, flags=cv2.INTER_LINEAR)
        )
        writer.write(picture)
        views.append(None if dark else view)
    writer.release()
    scenes = tuple(index // each for index in range(frames))
    cuts = tuple(_first_seen(start, black) for start in range(each, frames, each))
    return MadeVideo(path, size, tuple(views), scenes, cuts, tuple(black))


def _first_seen(index: int, black: Sequence[int]) -> int:
    while index in black:
        index += 1
    return index


def _view(photograph: Picture, size: tuple[int, int], done: float, motion: float) -> Matrix:
    """The camera at a share of its way, 0..1: it pans, zooms, turns and tilts, within the photograph."""
    rows, columns = photograph.shape[:2]
    fill = max(size[0] / columns, size[1] / rows)
    swing = math.sin(2 * math.pi * done) * motion
    zoom = fill * (1.35 + 0.15 * motion * (1 - math.cos(2 * math.pi * done)))
    angle = math.radians(5 * swing)
    centre = np.array(
        [columns / 2 + 0.06 * swing * columns, rows / 2 + 0.04 * math.sin(4 * math.pi * done) * motion * rows]
    )
    turn = zoom * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    view = np.eye(3)
    view[:2, :2] = turn
    view[:2, 2] = np.array([(size[0] - 1) / 2, (size[1] - 1) / 2]) - turn @ centre
    tilt = np.eye(3)
    tilt[2, 0] = 0.04 * swing / size[0]
    middle = np.eye(3)
    middle[:2, 2] = (size[0] - 1) / 2, (size[1] - 1) / 2
    return np.asarray(middle @ tilt @ np.linalg.inv(middle) @ view, np.float64)
