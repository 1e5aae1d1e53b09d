"""Images of another size, written straight to where they are wanted.

`area-linear` averages over areas along a side that shrinks (no aliasing), and interpolates linearly along a side that
grows. `lanczos` and `bicubic` are Pillow's filters, which widen when they shrink (`runtime.filters`). `bicubic-aliased`
and `bilinear-aliased` are OpenCV's, which do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from matchrt.manifest import Kernel
from matchrt.runtime.filters import Job, filter_all
from matchrt.runtime.workspace import Workspace

UInt8Array = npt.NDArray[np.uint8]


def resize_into(pixels: UInt8Array, out: UInt8Array, kernel: Kernel, workspace: Workspace) -> None:
    """Resizes `pixels`, uint8 [H, W] or [H, W, 3], to the size of `out`, whose rows may be apart. Raises nothing."""
    resize_all([Job(pixels, out)], kernel, workspace)


def resize_all(jobs: Sequence[Job], kernel: Kernel, workspace: Workspace) -> None:
    """Resizes several images at a time, on the workspace's threads where that pays. Raises nothing."""
    changed = [job for job in jobs if job.pixels.shape[:2] != job.out.shape[:2]]
    for job in jobs:
        if job not in changed:
            np.copyto(job.out, job.pixels)
    if kernel in ("bicubic", "lanczos"):
        filter_all(changed, kernel, workspace)
        return
    for job in changed:
        if kernel == "area-linear":
            _area_linear(job.pixels, job.out, workspace)
        else:
            _by_opencv(job.pixels, job.out, cv2.INTER_LINEAR if kernel == "bilinear-aliased" else cv2.INTER_CUBIC)


def _area_linear(pixels: UInt8Array, out: UInt8Array, workspace: Workspace) -> None:
    """Shrinks first, then enlarges: INTER_AREA stops averaging as soon as one of its two sides grows."""
    height, width = out.shape[:2]
    down = (min(height, pixels.shape[0]), min(width, pixels.shape[1]))
    if down == (height, width):
        _by_opencv(pixels, out, cv2.INTER_AREA)
        return
    if down != pixels.shape[:2]:
        smaller = workspace.take("smaller", (*down, *pixels.shape[2:]))
        _by_opencv(pixels, smaller, cv2.INTER_AREA)
        pixels = smaller
    _by_opencv(pixels, out, cv2.INTER_LINEAR)


def _by_opencv(pixels: UInt8Array, out: UInt8Array, interpolation: int) -> None:
    result = cv2.resize(pixels, (out.shape[1], out.shape[0]), dst=out, interpolation=interpolation)
    if result is not out:  # OpenCV does not like its layout
        np.copyto(out, np.asarray(result, np.uint8))
