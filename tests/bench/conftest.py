"""A tiny evaluation folder with exact truth, and matchers for it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

HOMOGRAPHY = np.array([[1.05, 0.08, -12.0], [-0.04, 0.97, 9.0], [5e-5, -3e-5, 1.0]])
INTRINSICS = np.array([[500.0, 0, 320], [0, 500.0, 240], [0, 0, 1]])
SIZE = (480, 640)
DISPARITY = 17.25


def rotation_about_y(degrees):
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])


def through(homography, points):
    mapped = np.column_stack([points, np.ones(len(points))]) @ np.asarray(homography).T
    return mapped[:, :2] / mapped[:, 2:]


# World to camera: X = R W + t.
CAMERAS = {
    "scene/a": (np.eye(3), np.zeros(3)),
    "scene/b": (rotation_about_y(6), np.array([-0.8, 0.1, 0.05])),
    "scene/c": (rotation_about_y(-5), np.array([0.7, -0.2, 0.1])),
}


@pytest.fixture(scope="session")
def eval_folder(tmp_path_factory):
    """homography/ 2 pairs, pose/ 3 pairs, stereo/ 1 pair, nogt/ 1 pair and 1 negative one."""
    root = tmp_path_factory.mktemp("eval")
    _write_images(root, ["homography/0.png", "homography/1.png", "homography/2.png", "stereo/l.png", "stereo/r.png"])
    _write_images(root, ["nogt/p.png", "nogt/q.png", "nogt/x.png", "nogt/y.png"])
    _write_images(root, [f"pose/{name[-1]}.png" for name in CAMERAS])
    homography = {"height0": 480, "width0": 640, "height1": 480, "width1": 640, "image0": "homography/0.png"}
    _write_pairs(
        root / "homography",
        [
            {"id": "tiny/0_1", "image1": "homography/1.png", "H": HOMOGRAPHY.tolist(), **homography},
            {"id": "tiny/0_2", "image1": "homography/2.png", "H": np.eye(3).tolist(), **homography},
        ],
    )
    np.savez(root / "stereo" / "disparity.npz", np.full(SIZE, DISPARITY, np.float32))
    stereo = {"id": "rig", "image0": "stereo/l.png", "image1": "stereo/r.png", "disparity": "stereo/disparity.npz"}
    _write_pairs(root / "stereo", [stereo])
    _write_pairs(
        root / "nogt",
        [
            {"id": "same", "image0": "nogt/p.png", "image1": "nogt/q.png"},
            {"id": "different", "image0": "nogt/x.png", "image1": "nogt/y.png", "negative": True},
        ],
    )
    _write_pose(root)
    return root


def _write_images(root, names):
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        PILImage.fromarray(np.zeros(SIZE, np.uint8)).save(root / name)


def _write_pairs(folder, pairs, **more):
    (folder / "pairs.json").write_text(json.dumps({"pairs": pairs, **more}), encoding="utf-8")


def _write_pose(root):
    images = {
        name: {"file": f"pose/{name[-1]}.png", "width": 640, "height": 480, "K": INTRINSICS.tolist()}
        for name in CAMERAS
    }
    pairs = []
    for first, second in (("scene/a", "scene/b"), ("scene/a", "scene/c"), ("scene/b", "scene/c")):
        (rotation0, translation0), (rotation1, translation1) = CAMERAS[first], CAMERAS[second]
        rotation = rotation1 @ rotation0.T
        translation = translation1 - rotation @ translation0
        entry = {"id": f"{first}__{second[-1]}", "set": "scene", "image0": first, "image1": second}
        pairs.append(entry | {"R": rotation.tolist(), "t": (4 * translation).tolist()})  # its length means nothing
    _write_pairs(root / "pose", pairs, images=images)


class TrueMatcher:
    """Returns true correspondences with noise (a standard deviation in pixels) on the second image."""

    def __init__(self, noise=0.0, count=200):
        self.noise, self.count, self.seen = noise, count, []

    def __call__(self, image0, image1):
        self.seen.append((image0, image1))
        rng = np.random.default_rng(7)
        points0, points1 = self._exact(image0, image1, rng)
        return points0, points1 + rng.normal(0, self.noise, points1.shape)

    def _exact(self, image0, image1, rng):
        kind = image0.parent.name
        points = rng.uniform((40, 40), (600, 440), (self.count, 2))
        if kind == "homography":
            return points, through(HOMOGRAPHY if image1.stem == "1" else np.eye(3), points)
        if kind == "stereo":
            return points, points - [DISPARITY, 0]
        if kind == "pose":
            world = np.column_stack([rng.uniform(-2, 2, self.count), rng.uniform(-1.5, 1.5, self.count),
                                     rng.uniform(4, 9, self.count)])  # fmt: skip
            return _seen_by(image0, world), _seen_by(image1, world)
        if image0.stem == "p":
            return points, through(HOMOGRAPHY, points)
        return points[:0], points[:0]


def _seen_by(image, world):
    rotation, translation = CAMERAS[f"scene/{image.stem}"]
    return through(INTRINSICS, (camera := world @ rotation.T + translation)[:, :2] / camera[:, 2:])


class GarbageMatcher:
    """Returns points that have nothing to do with each other."""

    def __call__(self, image0, image1):
        rng = np.random.default_rng(11)
        return rng.uniform((0, 0), (639, 479), (200, 2)), rng.uniform((0, 0), (639, 479), (200, 2))


@pytest.fixture
def true_matcher():
    return TrueMatcher


@pytest.fixture
def garbage_matcher():
    return GarbageMatcher()


@pytest.fixture
def no_matches():
    return lambda image0, image1: (np.zeros((0, 2)), np.zeros((0, 2)))


@pytest.fixture(scope="session")
def shared_eval():
    """The evaluation folder that is not part of the repository: $MATCHRT_EVAL, or ../shared/eval."""
    root = Path(os.environ.get("MATCHRT_EVAL", Path(__file__).parents[3] / "shared" / "eval"))
    if not (root / "homography" / "pairs.json").is_file():
        pytest.skip("needs the evaluation photographs, which are not in the repository: set MATCHRT_EVAL")
    return root
