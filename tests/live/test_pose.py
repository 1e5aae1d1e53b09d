"""The pose of a camera that moves before two photographs at different depths: both are known exactly."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from support.made_video import two_scenes

from matchrt.live.drawing import Painter
from matchrt.live.keyframes import Policy, Step, Tracker
from matchrt.live.matching import Camera, FramePairing
from matchrt.live.motion import read_camera, rotation_degrees
from matchrt.live.report import Report
from matchrt.live.run import run_live
from matchrt.live.source import open_feed
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.options import MatcherOptions

Matrix = npt.NDArray[np.float64]
WIDTH, HEIGHT = 320, 240
INTRINSICS = "300,300,159.5,119.5"
# Depth and height of each photograph, in units of length; the nearer one hides a part of the other.
FAR, NEAR = (2.0, 3.2), (1.2, 0.7)


def _pose(index: int) -> tuple[Matrix, Matrix]:
    """Rotation and centre of the camera at a frame."""
    turn = cv2.Rodrigues(np.array([0.01, -0.03, 0.02]) * index)[0]
    return np.asarray(turn, np.float64), np.array([0.12, 0.04, 0.02]) * index


def _seen(photograph: npt.NDArray[np.uint8], place: tuple[float, float], index: int) -> Matrix:
    """The homography from a photograph, which stands upright before the first camera, to a frame."""
    depth, height = place
    rows, columns = photograph.shape[:2]
    unit = height / rows
    turn, centre = _pose(index)
    corner = np.array([-unit * columns / 2, -height / 2, depth])
    return np.asarray(read_camera(INTRINSICS) @ turn @ np.column_stack([(unit, 0, 0), (0, unit, 0), corner - centre]))


def _frame(index: int) -> npt.NDArray[np.uint8]:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for photograph, place in zip(two_scenes(), (FAR, NEAR), strict=True):
        view = _seen(photograph, place, index)
        covered = cv2.warpPerspective(np.ones(photograph.shape[:2], np.uint8), view, (WIDTH, HEIGHT)) > 0
        picture[covered] = cv2.warpPerspective(photograph, view, (WIDTH, HEIGHT))[covered]
    return picture


def test_the_pose_of_each_frame(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}.png"), _frame(index))
    steps: list[Step] = []

    def tell(step: Step, report: Report) -> None:
        steps.append(step)

    with Matcher(options=MatcherOptions(resize=320)) as matcher:
        pairing = FramePairing(matcher, Camera(read_camera(INTRINSICS)))
        tracker = Tracker(pairing, Policy.parse("first"))
        assert run_live(open_feed(str(folder)), tracker, Painter("m"), tell=tell).error is None
    assert [step.status for step in steps] == ["keyframe"] + ["tracked"] * 3
    for index, step in enumerate(steps[1:], 1):
        assert step.matches is not None and step.matches.geometry is not None
        found = step.matches.geometry
        assert found.rotation is not None and found.translation is not None
        turn, centre = _pose(index)
        direction = -turn @ centre / np.linalg.norm(centre)
        assert rotation_degrees(found.rotation @ turn.T) < 1.0
        assert np.degrees(np.arccos(np.clip(found.translation @ direction, -1, 1))) < 10.0
