"""An engine that matches two images only if both are the same way up, and images of which it can see that."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.manifest import EngineManifest, FrameContract, TensorSpec, read_manifest
from matchrt.runtime.engine_file import engine_path
from support.plain_session import PlainSession

ACROSS, DOWN, RANDOM = 20, 15, 60
SLOTS = ACROSS * DOWN


def marked(height: int, width: int, turned: int = 0, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A grey image `[height, width]`: a picture with a bright top left quarter, turned clockwise by some degrees."""
    sides = (width, height) if turned in (90, 270) else (height, width)
    image = np.random.default_rng(seed).integers(30, 90, sides).astype(np.uint8)
    image[: sides[0] // 2, : sides[1] // 2] += 120
    return np.ascontiguousarray(np.rot90(image, -turned // 90))


def bundled_manifest(**changes: Any) -> EngineManifest:
    path = engine_path("loftr-lite")
    bundled = read_manifest(path.with_name(path.name + ".json"))
    return dataclasses.replace(bundled, matching=dataclasses.replace(bundled.matching, max_matches=SLOTS), **changes)


def dynamic_manifest() -> EngineManifest:
    """The bundled engine's."""
    return bundled_manifest()


def static_manifest(height: int, width: int) -> EngineManifest:
    """Of an engine of one size, with padding."""
    fixed = dataclasses.replace(bundled_manifest().input, height=height, width=width, profile=None, fitting="letterbox")
    images = tuple(TensorSpec(f"image{i}", "uint8", (1, height, width, 1)) for i in (0, 1))
    sizes = tuple(TensorSpec(f"size{i}", "int32", (1, 2)) for i in (0, 1))
    return bundled_manifest(input=fixed, inputs=(*images, *sizes))


def frames_manifest(frames: FrameContract) -> EngineManifest:
    """Of an engine for frames of fixed sizes."""
    assert frames.sizes is not None
    fixed = dataclasses.replace(
        bundled_manifest().input, height=64, width=96, profile=None, fitting="stretch", frames=frames
    )
    inputs = tuple(TensorSpec(f"frame{i}", "uint8", (1, *frames.shape(size))) for i, size in enumerate(frames.sizes))
    return bundled_manifest(input=fixed, inputs=inputs)


class MarkSession(PlainSession):
    """Sees which quarter of each image is bright. If it is the same one, it finds a grid of matches, else random ones.

    good, bad: scores of the two kinds. least: the longest side at which it finds the grid is not below this. ratio: of
    the heights of what both images show, at which it finds the grid.
    """

    def __init__(
        self, manifest: EngineManifest, good: float = 0.9, bad: float = 0.45, least: int = 0, ratio: float | None = None
    ) -> None:
        self.manifest = manifest
        self.good, self.bad, self.least, self.ratio = good, bad, least, ratio
        self.sizes: list[tuple[tuple[int, int], tuple[int, int]]] = []

    def run(self, inputs: Any) -> dict[str, npt.NDArray[Any]]:
        images = [inputs[name][0] for name in sorted(inputs) if name.startswith(("image", "frame"))]
        frames = self.manifest.input.frames
        if frames is not None and frames.pixels == "nv12":
            images = [image[: image.shape[0] * 2 // 3] for image in images]
        self.sizes.append((images[0].shape[:2], images[1].shape[:2]))
        greys = [image.mean(axis=2) for image in images]
        boxes = [_box(grey) for grey in greys]
        alike = _quarter(greys[0], boxes[0]) == _quarter(greys[1], boxes[1])
        points = np.zeros((2, 1, SLOTS, 2), np.float32)
        scores = np.zeros((1, SLOTS), np.float32)
        if self.ratio is not None:
            alike &= abs(boxes[0][2] / boxes[1][2] / self.ratio - 1) < 0.1
        if alike and max(images[0].shape[:2]) >= self.least:
            count = SLOTS
            units = np.stack(np.meshgrid((np.arange(ACROSS) + 0.5) / ACROSS, (np.arange(DOWN) + 0.5) / DOWN), 2)
            for side, (top, left, height, width) in enumerate(boxes):
                points[side, 0] = units.reshape(-1, 2) * (width, height) - 0.5 + (left, top)
            scores[0] = self.good
        else:
            count = RANDOM
            for side, (top, left, height, width) in enumerate(boxes):
                drawn = np.random.default_rng(side + len(self.sizes)).uniform(0.1, 0.9, (count, 2))
                points[side, 0, :count] = drawn * (width, height) + (left, top)
            scores[0, :count] = self.bad
        return {
            "keypoints0": points[0],
            "keypoints1": points[1],
            "scores": scores,
            "num_matches": np.array([count], np.int32),
        }


def _box(grey: npt.NDArray[Any]) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is not black."""
    if grey.max() <= 20:
        return 0, 0, *grey.shape[:2]
    rows, columns = np.flatnonzero(grey.max(axis=1) > 20), np.flatnonzero(grey.max(axis=0) > 20)
    return int(rows[0]), int(columns[0]), int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def _quarter(grey: npt.NDArray[Any], box: tuple[int, int, int, int]) -> int:
    top, left, height, width = box
    inner = grey[top : top + height, left : left + width]
    halves = np.array_split(inner, 2, axis=0)
    return int(np.argmax([part.mean() for half in halves for part in np.array_split(half, 2, axis=1)]))
