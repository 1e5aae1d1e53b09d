"""Turns matches of pairs into keypoints of images: points of many pairs that fall into one cell become one keypoint.

Detector-free networks find other points in every pair. SfM needs tracks, so the points of an image are merged on a grid
of cells, as in hloc's dense matching (Sarlin et al., hloc; Sun et al., LoFTR, CVPR 2021, section 4.3 "visual
localisation"). Two things differ from hloc, so that the order of pairs changes only the last bits of sums. A keypoint
is the mean of its points, weighted by their scores, and not the centre of the fullest bin. Keypoints are numbered by
their cells, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matchrt.batch.results import Float32Array
from matchrt.errors import MatchRTError

Int32Array = npt.NDArray[np.int32]

# The shift keeps cell numbers positive, because points may be a little outside of the image.
_ROW = 1 << 32
_SHIFT = 1 << 20
_TINY = 1e-9


@dataclass(frozen=True)
class MergeOptions:
    """How the points of an image become keypoints.

    cell_size: side of a cell in pixels; the points in a cell become one keypoint.
    max_error: a match is dropped if one of its points is farther than this from its keypoint, in pixels; None for no
        limit.
    max_keypoints: number of keypoints of an image that are kept, those with the largest sums of scores; None for all.
    """

    cell_size: float = 1.0
    max_error: float | None = 1.0
    max_keypoints: int | None = None

    def __post_init__(self) -> None:
        limits = (
            ("cell_size", self.cell_size > 0, "above 0"),
            ("max_error", self.max_error is None or self.max_error > 0, "above 0"),
            ("max_keypoints", self.max_keypoints is None or self.max_keypoints > 0, "1 or more"),
        )
        for name, good, wanted in limits:
            if not good:
                raise MatchRTError("option-range", f"{name} is {getattr(self, name)}.", f"It must be {wanted}.")


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Keypoints of an image.

    points: float32 [M, 2], (x, y) in pixels of the image, as in `Matches`.
    scores: float32 [M], sums over the points that were merged.
    """

    points: Float32Array
    scores: Float32Array


def merge_points(
    points: npt.NDArray[np.floating], scores: npt.NDArray[np.floating], options: MergeOptions
) -> tuple[Keypoints, Int32Array]:
    """Merges all points of an image. Returns the keypoints, and for each point its keypoint's index, -1 without one.

    points: [N, 2], (x, y) in pixels of the image. scores: [N].
    """
    cells = np.floor((points.astype(np.float64) + 0.5) / options.cell_size).astype(np.int64) + _SHIFT
    _, ids = np.unique(cells[:, 1] * _ROW + cells[:, 0], return_inverse=True)
    count = int(ids.max()) + 1 if len(ids) else 0
    weights = scores.astype(np.float64) + _TINY  # a score may be 0
    sums = np.bincount(ids, weights, count)
    means = np.column_stack([np.bincount(ids, weights * points[:, axis], count) / sums for axis in (0, 1)])
    keypoints = Keypoints(means.astype(np.float32).reshape(-1, 2), sums.astype(np.float32))
    if options.max_error is not None and count:
        far = np.linalg.norm(points - keypoints.points[ids], axis=1) > options.max_error
        ids = np.where(far, -1, ids)
    return _strongest(keypoints, ids.astype(np.int32), options.max_keypoints)


def _strongest(keypoints: Keypoints, ids: Int32Array, most: int | None) -> tuple[Keypoints, Int32Array]:
    """The keypoints that still have points, at most the `most` strongest of them, and the points' new indices."""
    used = np.bincount(ids[ids >= 0], minlength=len(keypoints.points)) > 0
    kept = np.flatnonzero(used)
    if most is not None and len(kept) > most:
        kept = np.sort(kept[np.argsort(-keypoints.scores[kept], kind="stable")[:most]])
    renamed = np.full(len(keypoints.points) + 1, -1, np.int32)  # the last for points without a keypoint
    renamed[kept] = np.arange(len(kept), dtype=np.int32)
    return Keypoints(keypoints.points[kept], keypoints.scores[kept]), renamed[ids]


def one_to_one(ids0: Int32Array, ids1: Int32Array, scores: Float32Array) -> tuple[npt.NDArray[np.uint32], Float32Array]:
    """The matches of keypoints uint32 [K, 2] and their scores [K], in which every keypoint has one match at most.

    A match is kept if it is the best one of both of its keypoints.
    ids0, ids1: [N], the keypoints of each match in image 0 and image 1; -1 for none. scores: [N], descending.
    """
    kept = (ids0 >= 0) & (ids1 >= 0)
    pairs, kept_scores = np.column_stack([ids0[kept], ids1[kept]]).astype(np.uint32), scores[kept]
    first = np.zeros((2, len(pairs)), bool)
    for side in (0, 1):
        first[side, np.unique(pairs[:, side], return_index=True)[1]] = True
    best = first.all(axis=0)
    return pairs[best], kept_scores[best]
