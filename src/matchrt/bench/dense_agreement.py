"""Whether two dense warps of the same network differ by more than rounding."""

from __future__ import annotations

import numpy as np

from matchrt.bench.agreement import FloatArray
from matchrt.bench.difference import Difference, Outputs
from matchrt.manifest import PRECISION_OUTPUT

# A dense warp is compared where its certainty is above SURE. Half of these pixels must agree within MEDIAN_PIXELS, and
# all but the share FLIPPED within one pixel. Where features are much alike, the Gaussian process has only three digits
# in float32 (with a float32 Cholesky too). That flips one to three of 1600 patches to another anchor of nearly the same
# logit, and the refiners then move all other pixels a little. This was measured at 560 and 864 with random weights:
# docs/models/roma.md.
SURE = 0.05
MEDIAN_PIXELS = 0.02
MEAN_CERTAINTY = 5e-3
FLIPPED = 0.05


def compare_dense(expected: Outputs, actual: Outputs) -> Difference:
    """Compares dense warps and certainties, and the number and scores of the matches that were selected from them.

    expected, actual: outputs by name: `warp` [B, H, W, 4] in -1..1, `certainty` [B, H, W] in 0..1, `scores` and
    `num_matches`, and `precision` [B, H, W, 3] where both have it.
    The fields of the result have these meanings here. pixels: median distance in the certain part of the warp. score:
    mean difference of the certainties, or of the scores, or the relative difference of
    the precisions in the median, whichever is the largest. lost: number of pixels of the warp that
    moved by more than one pixel, beyond the share `FLIPPED`.
    """
    sure = expected["certainty"] > SURE
    height, width = expected["certainty"].shape[1:]
    # With both directions, the map is twice as wide as an image. Distances along x count double then.
    half = np.array([width, height, width, height], np.float32) / 2.0
    distance = (np.abs(expected["warp"] - actual["warp"]) * half).max(axis=3)[sure]
    pixels = float(np.median(distance)) if distance.size else 0.0
    scores = float(np.abs(expected["scores"] - actual["scores"]).mean())
    certainty = float(np.abs(expected["certainty"] - actual["certainty"]).mean())
    precision = 0.0
    if PRECISION_OUTPUT in expected and PRECISION_OUTPUT in actual and sure.any():
        apart = _apart(*(np.asarray(outputs[PRECISION_OUTPUT][sure], np.float64) for outputs in (expected, actual)))
        precision = float(np.median(apart))
    lost = max(0, int((distance > 1.0).sum()) - int(FLIPPED * distance.size))
    counts = min(int(outputs["num_matches"][0]) for outputs in (expected, actual))
    return Difference(
        counts,
        lost,
        0,
        pixels,
        max(scores, certainty, precision),
        pixel_limit=MEDIAN_PIXELS,
        score_limit=MEAN_CERTAINTY,
    )


def _apart(first: FloatArray, second: FloatArray) -> FloatArray:
    """How far apart symmetric 2x2 matrices `[N, 3]` (xx, xy, yy) are, relative to the first ones: `[N]`."""

    def norm(matrices: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt((matrices**2 * [1, 2, 1]).sum(axis=1)))

    return norm(first - second) / norm(first)
