"""Matches as sensor_msgs/PointCloud2: one point for each match, with the fields x0, y0, x1, y1 and score."""

from __future__ import annotations

import sys
from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt import Matches

FIELDS = ("x0", "y0", "x1", "y1", "score")
POINT_STEP = 4 * len(FIELDS)
# sensor_msgs/PointField.FLOAT32.
FLOAT32 = 7


def rows_of(matches: Matches, inliers_only: bool = False) -> npt.NDArray[np.float32]:
    """float32 `[N, 5]`: x0, y0 and x1, y1 in pixels of the images as they came, and the score; best first.

    inliers_only: leave out what disagrees with the matches' geometry.
    """
    rows = np.column_stack([matches.keypoints0, matches.keypoints1, matches.scores]).astype(np.float32)
    return rows[matches.inliers] if inliers_only else rows


def fill_cloud(message: Any, field: Any, rows: npt.NDArray[np.float32]) -> None:
    """Writes rows `[N, 5]` into a PointCloud2. The header is left as it is. field: the class PointField."""
    message.height, message.width = 1, len(rows)
    message.fields = [
        field(name=name, offset=4 * index, datatype=FLOAT32, count=1) for index, name in enumerate(FIELDS)
    ]
    message.is_bigendian = sys.byteorder == "big"
    message.point_step, message.row_step = POINT_STEP, POINT_STEP * len(rows)
    # An array: the generated setter looks at every single byte of `bytes`.
    message.data = array("B", np.ascontiguousarray(rows, np.float32).tobytes())
    message.is_dense = True


def read_cloud(message: Any) -> npt.NDArray[np.float32]:
    """float32 `[N, 5]` of a message that `fill_cloud` wrote, for nodes that read it."""
    kind = np.dtype(">f4" if message.is_bigendian else "<f4")
    return np.frombuffer(message.data, kind).reshape(message.width, len(FIELDS)).astype(np.float32)
