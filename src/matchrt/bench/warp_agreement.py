"""How far the matches that an engine selects from its dense warp are from the warp of its reference.

A dense network selects K matches from a warp, and which ones changes with the last bit: of RoMa's matches with random
weights, two thirds are at other pixels in fp16. So each selected match is compared with the reference's warp and
certainty at the pixel that the engine chose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.bench.metrics import pixel_scale

FloatArray = npt.NDArray[np.float64]
# One end of a match is a pixel of the image that the warp belongs to: whole numbers but for rounding, which on GPUs may
# be that of float16, a tenth of a pixel at a width of 864.
_SAME_PIXEL = 0.3


@dataclass(frozen=True, eq=False)
class DenseReference:
    """The reference's answer on one pair.

    targets: float32 [H, T, 2], where each pixel lies in the other image, in pixels. Columns 0..W-1 are image 0; with
        both directions, T is 2W, and the others are image 1.
    certainty: float32 [H, T], 0..1.
    width: W.
    """

    targets: npt.NDArray[np.float32]
    certainty: npt.NDArray[np.float32]
    width: int

    @classmethod
    def from_outputs(cls, outputs: Mapping[str, npt.NDArray[Any]], row: int, width: int) -> DenseReference:
        """From one row of the outputs `warp` [B, H, T, 4] in -1..1 and `certainty` [B, H, T]. width: of an image."""
        warp, certainty = outputs["warp"][row], outputs["certainty"][row]
        height = warp.shape[0]
        ends = np.concatenate([warp[:, :width, 2:], warp[:, width:, :2]], axis=1)
        half = np.array([width, height], np.float32) / 2
        return cls(((ends + 1) * half - 0.5).astype(np.float32), certainty.astype(np.float32), width)


@dataclass(frozen=True, eq=False)
class WarpAgreement:
    """The differences of an engine's matches from the reference's warp.

    distances: [N], in pixels of images scaled to a long side of 640; infinite for a match that is no pixel of a warp.
    certainties: [N], absolute differences of the certainty.
    """

    distances: FloatArray
    certainties: FloatArray

    def share(self, pixels: float) -> float:
        """The share (0..1) of the matches within that distance; 0 if there are none."""
        return float((self.distances <= pixels).mean()) if len(self.distances) else 0.0

    @property
    def median(self) -> float:
        """The median distance in pixels; infinite if there are no matches."""
        return float(np.median(self.distances)) if len(self.distances) else float("inf")

    @property
    def certainty(self) -> float:
        """The mean difference of the certainty; infinite if there are no matches."""
        return float(self.certainties.mean()) if len(self.certainties) else float("inf")


def warp_agreement(reference: DenseReference, outputs: Mapping[str, npt.NDArray[Any]], row: int) -> WarpAgreement:
    """Compares the matches in one row of an engine's outputs with the reference's warp at their pixels."""
    count = int(outputs["num_matches"][row])
    first, second = (np.asarray(outputs[name][row][:count], np.float64) for name in ("keypoints0", "keypoints1"))
    scores = np.asarray(outputs["scores"][row][:count], np.float64)
    height, total = reference.certainty.shape
    sizes = {0: reference.width, 1: total - reference.width}
    distances, certainties = np.full(count, np.inf), np.ones(count)
    for image, (chosen, other) in enumerate(((first, second), (second, first))):
        pixel = np.rint(np.clip(np.nan_to_num(chosen, nan=-1), -1, 1 << 30)).astype(np.int64)
        inside = (pixel >= 0).all(axis=1) & (pixel[:, 0] < sizes[image]) & (pixel[:, 1] < height)
        rows = np.flatnonzero(inside & (np.abs(chosen - pixel) < _SAME_PIXEL).all(axis=1))
        column, line = pixel[rows, 0] + image * reference.width, pixel[rows, 1]
        apart = np.hypot(*(other[rows] - reference.targets[line, column]).T)
        # Both ends of a match may be near pixels. It belongs to the warp that it is nearer to.
        better = apart < distances[rows]
        distances[rows[better]] = apart[better]
        certainties[rows[better]] = np.abs(scores[rows] - reference.certainty[line, column])[better]
    distances = np.where(np.isnan(distances), np.inf, distances) / pixel_scale(height, reference.width)
    return WarpAgreement(distances, np.nan_to_num(certainties, nan=1.0))


def warps_together(pairs: Sequence[WarpAgreement]) -> WarpAgreement:
    """The agreement of all pairs together."""
    return WarpAgreement(
        np.concatenate([pair.distances for pair in pairs]), np.concatenate([pair.certainties for pair in pairs])
    )
