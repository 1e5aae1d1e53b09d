"""What matches are made of, and what follows from them alone. `matches.Matches` adds pictures and files.

Coordinates: pixels of the ORIGINAL images, x right, y down, the centre of the top-left pixel is (0, 0). An image that
EXIF turns counts as turned (upright). `ImageRef.stored_points` leads back to the pixels as the file stores them.

Errors: `matches-orientation` (see `ImageRef`), `matches-invalid` (arrays that cannot be matches), `matches-unverified`
(inliers were asked for before `verify`, or a verdict before `verify` or `judge`), and those of `geometry`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.runtime import geometry as two_view
from matchrt.runtime.geometry import Estimator, Geometry, Kind
from matchrt.runtime.orientation import UPRIGHT, stored_points, turn_size
from matchrt.runtime.verdict import Verdict, Word, judge

Float32Array = npt.NDArray[np.float32]
MatchesT = TypeVar("MatchesT", bound="MatchData")

# Degrees clockwise.
Quarter = Literal[0, 90, 180, 270]
QUARTERS: tuple[Quarter, ...] = get_args(Quarter)
# Scores of fp16 engines may exceed 1 by rounding; anything more is a bug.
_SCORE_ROUNDING = 1e-3


@dataclass(frozen=True)
class ImageRef:
    """Name and size of an image that was matched.

    name: its path as given, or what the caller called the array.
    height: of the original, pixels; of a turned image, after it was turned.
    width: of the original, pixels; of a turned image, after it was turned.
    orientation: the EXIF orientation, 1..8, by which the stored pixels were turned; 1 if they were not; None if the
        file of these matches is too old to say.
    """

    name: str
    height: int
    width: int
    orientation: int | None = UPRIGHT

    def stored_size(self) -> tuple[int, int]:
        """(height, width) of the pixels as the file stores them. Error: matches-orientation."""
        return turn_size(self.height, self.width, self._known())

    def stored_points(self, points: Float32Array) -> Float32Array:
        """Keypoints of this image in the pixels that its file stores, float32 [N, 2] like `points`.

        Readers without EXIF see these pixels, such as those of COLMAP and hloc. Error: matches-orientation.
        """
        return stored_points(points, self._known(), self.height, self.width)

    def holds(self, points: Float32Array) -> npt.NDArray[np.bool_]:
        """Which points [N, 2] (x, y) are within the image's edges, bool [N]; NaN counts as within. Raises nothing."""
        outside = (points < -0.5) | (points > np.array([self.width, self.height]) - 0.5)
        return np.asarray(~outside.any(axis=1))

    def _known(self) -> int:
        if self.orientation is None:
            raise MatchRTError(
                "matches-orientation",
                f"These matches are of an older matchrt, which did not note how '{self.name}' was turned by EXIF.",
                "Match the images again.",
            )
        return self.orientation


@dataclass(frozen=True)
class Provenance:
    """What made the matches.

    model: name of the model.
    engine_sha256: digest of the engine's bytes.
    precision: fp32, fp16, int8 or fp8.
    backend: what ran the engine.
    matchrt_version: version of the package.
    network_size0: (height, width) in pixels at which the network saw image 0.
    network_size1: the same of image 1.
    apply_exif: whether image files were turned as their EXIF orientation says.
    turned1: degrees, clockwise, by which image 1 was turned before the network saw it. Keypoints are in pixels of the
        image as it was given, and not of the turned one.
    """

    model: str
    engine_sha256: str
    precision: str
    backend: str
    matchrt_version: str
    network_size0: tuple[int, int]
    network_size1: tuple[int, int]
    apply_exif: bool = True
    turned1: Quarter = 0


@dataclass(frozen=True, eq=False)
class MatchData:
    """N matches between two images.

    keypoints0: float32 [N, 2], (x, y) in pixels of the original image 0.
    keypoints1: float32 [N, 2], the matching points in pixels of the original image 1.
    scores: float32 [N], confidences in 0..1, descending.
    image0: the first image's name and size.
    image1: the second image's name and size.
    timings: milliseconds by stage.
    provenance: what made the matches.
    geometry: the two-view geometry that `verify` found; None before.
    judgement: how sure it is that both images show the same thing, as `verify` or `judge` found; None before. It is of
        the pair: `filter` and `top` keep it.
    warnings: what a person should know about the images, a sentence each; not part of saved files.
    advice: what may find more, a sentence each, if these are few matches or doubtful ones; not part of saved files.

    The arrays are read-only copies. Error: matches-invalid for wrong shapes, NaN, scores outside 0..1 or out of order.
    """

    keypoints0: Float32Array
    keypoints1: Float32Array
    scores: Float32Array
    image0: ImageRef
    image1: ImageRef
    timings: Mapping[str, float]
    provenance: Provenance
    geometry: Geometry | None = field(default=None)
    judgement: Verdict | None = None
    warnings: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = (np.shape(self.scores) or (1,))[0]
        keypoints0 = _frozen(self.keypoints0, (count, 2), "keypoints0")
        keypoints1 = _frozen(self.keypoints1, (count, 2), "keypoints1")
        scores = _frozen_scores(self.scores, count)
        if self.geometry is not None and self.geometry.inliers.shape != (count,):
            raise _invalid(f"the geometry has inliers of shape {self.geometry.inliers.shape}, not ({count},)")
        for name, value in (("keypoints0", keypoints0), ("keypoints1", keypoints1), ("scores", scores)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "timings", {stage: float(ms) for stage, ms in self.timings.items()})

    def __len__(self) -> int:
        return len(self.scores)

    def filter(self: MatchesT, min_score: float) -> MatchesT:
        """The matches with a score of at least `min_score`. A geometry keeps its matrix; its inliers are cut to match.

        Raises nothing.
        """
        return self._first(int(np.count_nonzero(self.scores >= min_score)))

    def top(self: MatchesT, n: int) -> MatchesT:
        """The `n` best matches by score; all, if there are fewer. Error: matches-invalid if n is negative."""
        if n < 0:
            raise _invalid(f"top({n}) is negative")
        return self._first(min(n, len(self)))

    def _first(self: MatchesT, n: int) -> MatchesT:
        """The scores descend, so every choice by score is a slice from the start."""
        kept = None if self.geometry is None else replace(self.geometry, inliers=self.geometry.inliers[:n])
        return replace(
            self,
            keypoints0=self.keypoints0[:n],
            keypoints1=self.keypoints1[:n],
            scores=self.scores[:n],
            geometry=kept,
        )

    def verify(
        self: MatchesT,
        kind: Kind,
        *,
        threshold: float | None = None,
        K0: npt.ArrayLike | None = None,  # noqa: N803 (the name in every textbook)
        K1: npt.ArrayLike | None = None,  # noqa: N803 (the name in every textbook)
        estimator: Estimator = "magsac",
        seed: int = 0,
        confidence: float = 0.9999,
        max_iterations: int = 10000,
        judged: bool = True,
    ) -> MatchesT:
        """The same N matches with a robust two-view geometry, whose `inliers` are bool [N], and with a verdict.

        judged: whether the pair gets its `verdict` and `probability` (`judge`), which takes 3 to 6 milliseconds more.
        Other arguments and units are those of `geometry.estimate`. Errors: geometry-*, intrinsics-*, package-missing.
        """
        found = two_view.estimate(
            self.keypoints0,
            self.keypoints1,
            kind,
            threshold=threshold,
            K0=K0,
            K1=K1,
            estimator=estimator,
            seed=seed,
            confidence=confidence,
            max_iterations=max_iterations,
        )
        verified = replace(self, geometry=found)
        if not judged:
            return verified
        cameras = None if K0 is None or K1 is None else (np.asarray(K0, np.float64), np.asarray(K1, np.float64))
        return replace(verified, judgement=judge(verified, cameras))

    def judge(self: MatchesT) -> MatchesT:
        """The same N matches with a verdict on the pair, and the geometry that they have, if any. Raises nothing.

        Without a geometry, the verdict rests on a homography and a fundamental matrix, which are not kept.
        """
        return replace(self, judgement=judge(self))

    @property
    def verdict(self) -> Word:
        """`match`, `doubtful` or `no match`. Error: matches-unverified before `verify` and `judge`."""
        return self._judged().verdict

    @property
    def probability(self) -> float:
        """That both images show the same thing, 0..1. Error: matches-unverified before `verify` and `judge`."""
        return self._judged().probability

    def _judged(self) -> Verdict:
        if self.judgement is None:
            raise MatchRTError(
                "matches-unverified", "These matches have no verdict yet.", "Call matches.judge() or verify() first."
            )
        return self.judgement

    @property
    def inliers(self) -> npt.NDArray[np.bool_]:
        """bool [N]: which matches agree with the geometry. Error: matches-unverified before `verify`."""
        if self.geometry is None:
            raise MatchRTError(
                "matches-unverified", "These matches have no geometry yet.", "Call matches.verify('homography') first."
            )
        return self.geometry.inliers

    def summary(self) -> dict[str, Any]:
        """A dict for JSON: what was matched, how many and how good the matches are, no single match. Raises nothing."""
        return {**self.account(), "scores": _score_summary(self.scores)}

    @property
    def pixels(self) -> str:
        """Whose pixels the keypoints are in: `upright` as `ImageRef.orientation` turns an image, or `stored`."""
        return "upright" if self.provenance.apply_exif else "stored"

    def account(self) -> dict[str, Any]:
        """The summary without its figures of the scores, for callers that list all scores. Raises nothing."""
        result: dict[str, Any] = {
            "image0": vars(self.image0).copy(),
            "image1": vars(self.image1).copy(),
            "pixels": self.pixels,
            "matches": len(self),
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings.items()},
            "provenance": {
                **vars(self.provenance),
                "network_size0": list(self.provenance.network_size0),
                "network_size1": list(self.provenance.network_size1),
            },
        }
        if self.warnings:
            result["warnings"] = list(self.warnings)
        if self.advice:
            result["advice"] = list(self.advice)
        if self.geometry is not None:
            result["geometry"] = _geometry_summary(self.geometry)
        if self.judgement is not None:
            result |= _judgement_summary(self.judgement)
        return result


def _invalid(message: str) -> MatchRTError:
    return MatchRTError(
        "matches-invalid",
        f"These are no matches: {message}.",
        "Pass float32 keypoints [N,2] and scores [N] in 0..1, sorted by descending score.",
    )


def _frozen(values: npt.ArrayLike, shape: tuple[int, ...], name: str) -> Float32Array:
    """A read-only float32 copy: engines reuse their output buffers."""
    array = np.array(values, np.float32)
    if array.shape != shape:
        raise _invalid(f"{name} has the shape {array.shape}, not {shape}")
    # A sum is one pass, and shows a number that is not finite; only a sum that overflowed needs a second look.
    if not math.isfinite(array.sum()) and not np.isfinite(array).all():
        raise _invalid(f"{name} holds NaN or infinite values")
    array.setflags(write=False)
    return array


def _frozen_scores(values: npt.ArrayLike, count: int) -> Float32Array:
    scores = _frozen(values, (count,), "scores")
    if (scores[1:] > scores[:-1]).any():
        if scores.min() < -_SCORE_ROUNDING or scores.max() > 1 + _SCORE_ROUNDING:
            raise _out_of_range(scores)
        raise _invalid("scores do not descend")
    # The scores descend, so the first is the largest and the last is the smallest.
    if not count or (scores[-1] >= 0.0 and scores[0] <= 1.0):
        return scores
    if scores[-1] < -_SCORE_ROUNDING or scores[0] > 1 + _SCORE_ROUNDING:
        raise _out_of_range(scores)
    clipped = np.clip(scores, 0.0, 1.0)
    clipped.setflags(write=False)
    return clipped


def _out_of_range(scores: Float32Array) -> MatchRTError:
    return _invalid(f"scores run from {scores.min():g} to {scores.max():g}")


def _score_summary(scores: Float32Array) -> dict[str, float] | None:
    if not len(scores):
        return None
    values = {"min": scores.min(), "median": np.median(scores), "max": scores.max()}
    return {name: round(float(value), 6) for name, value in values.items()}


def _judgement_summary(judged: Verdict) -> dict[str, Any]:
    evidence = vars(judged.evidence).items()
    return {
        "verdict": judged.verdict,
        "probability": round(judged.probability, 4),
        "log10_nfa": round(judged.log10_nfa, 2),
        "evidence": {name: round(value, 4) if isinstance(value, float) else value for name, value in evidence},
    }


def _geometry_summary(geometry: Geometry) -> dict[str, Any]:
    def listed(array: npt.NDArray[np.float64] | None) -> list[Any] | None:
        return None if array is None else array.tolist()

    return {
        "kind": geometry.kind,
        "found": geometry.found,
        "inliers": geometry.num_inliers,
        "threshold_px": geometry.threshold_px,
        "estimator": geometry.estimator,
        "matrix": listed(geometry.matrix),
        "rotation": listed(geometry.rotation),
        "translation": listed(geometry.translation),
    }
