"""Matches as named values: arrays, and metadata that JSON can hold. The file formats write and read these.

Arrays: keypoints0, keypoints1 (float32 [N, 2]), scores (float32 [N]); after `verify`, inliers (bool [N]) and, if found,
    matrix [3, 3], rotation [3, 3], translation [3] (float64). Everything else is metadata. Metadata of judged pairs has
    `verdict`, `probability`, `log10_nfa` and `evidence`, as `Verdict` names them; that of others, and of older files,
    has none of them.
Metadata `pixels` says whose pixels the arrays are in: `upright`, those of each image as its `orientation` (of EXIF)
    turns it; or `stored`, those that its file stores. `ImageRef.stored_points` makes the second from the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt._util.from_json import parse_json
from matchrt.runtime.geometry import Geometry
from matchrt.runtime.match_data import ImageRef, MatchData, MatchesT, Provenance
from matchrt.runtime.orientation import ORIENTATIONS
from matchrt.runtime.verdict import Verdict

FORMAT = "matchrt-matches"
VERSION = 3
# Version 1 called the backend by another name. Versions 1 and 2 did not note orientations. Both are read.
_VERSION_1_BACKEND = "flavor"

_LARGEST_SIDE = 1 << 31
_ARRAYS = ("keypoints0", "keypoints1", "scores")
_GEOMETRY_ARRAYS = ("inliers", "matrix", "rotation", "translation")


def metadata(matches: MatchData) -> dict[str, Any]:
    """Everything that is not an array, as JSON values. Raises nothing."""
    geometry, judged = matches.geometry, matches.judgement
    return {
        "format": FORMAT,
        "version": VERSION,
        "image0": vars(matches.image0),
        "image1": vars(matches.image1),
        "pixels": matches.pixels,
        "timings_ms": dict(matches.timings),
        "provenance": vars(matches.provenance),
        "geometry": geometry
        and {"kind": geometry.kind, "threshold_px": geometry.threshold_px, "estimator": geometry.estimator},
        **({} if judged is None else vars(judged) | {"evidence": vars(judged.evidence)}),
    }


def arrays(matches: MatchData) -> dict[str, npt.NDArray[Any]]:
    """The arrays by name, as the module describes them: keypoints `[N, 2]`, scores `[N]` and so on. Raises nothing.

    An array that the matches do not have is left out.
    """
    found: dict[str, npt.NDArray[Any]] = {name: getattr(matches, name) for name in _ARRAYS}
    optional = ((name, getattr(matches.geometry, name, None)) for name in _GEOMETRY_ARRAYS)
    return found | {name: array for name, array in optional if array is not None}


def from_record(record: Mapping[str, Any], kind: type[MatchesT]) -> MatchesT:
    """The matches of metadata and arrays `[N, ...]` together.

    Errors: KeyError, TypeError, ValueError and AttributeError if a value is missing or of another kind; MatchRTError
    (matches-invalid) if the arrays do not belong together.
    """
    if record.get("format") != FORMAT or record.get("version") not in (1, 2, VERSION):
        raise ValueError(f"format {record.get('format')!r}, version {record.get('version')!r} is not known")
    made_by = dict(record["provenance"])
    if record["version"] == 1:
        made_by["backend"] = made_by.pop(_VERSION_1_BACKEND)
    return kind(
        keypoints0=_points(record["keypoints0"]),
        keypoints1=_points(record["keypoints1"]),
        scores=_numbers(record["scores"]).astype(np.float32),
        image0=_image(record["image0"], "image0", record["version"]),
        image1=_image(record["image1"], "image1", record["version"]),
        timings=parse_json(dict[str, float], record["timings_ms"], "timings_ms"),
        provenance=parse_json(Provenance, made_by, "provenance"),
        geometry=_geometry(record),
        judgement=_judgement(record),
    )


def _image(value: Any, where: str, version: int) -> ImageRef:
    stored = {"orientation": None, **value} if version < VERSION and isinstance(value, Mapping) else value
    image: ImageRef = parse_json(ImageRef, stored, where)
    if not (0 < image.height < _LARGEST_SIDE and 0 < image.width < _LARGEST_SIDE):
        raise ValueError(f"{where} is {image.height}x{image.width}")
    if image.orientation is not None and image.orientation not in ORIENTATIONS:
        raise ValueError(f"{where} has the orientation {image.orientation!r}")
    return image


def _numbers(values: Any) -> npt.NDArray[Any]:
    """The values as an array of numbers. Error: ValueError for any others, which NumPy would turn into numbers."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"an array holds {array.dtype}, not numbers")
    return array


def _points(values: Any) -> npt.NDArray[np.float32]:
    array = _numbers(values).astype(np.float32)
    return array.reshape(0, 2) if array.size == 0 else array  # an empty JSON list has lost its second axis


def _geometry(record: Mapping[str, Any]) -> Geometry | None:
    stored = record["geometry"]
    if stored is None:
        return None
    if stored["kind"] not in ("homography", "fundamental", "essential"):
        raise ValueError(f"unknown geometry {stored['kind']!r}")
    return Geometry(
        kind=stored["kind"],
        matrix=_optional(record, "matrix", (3, 3)),
        inliers=_inliers(record["inliers"]),
        threshold_px=parse_json(float, stored["threshold_px"], "threshold_px"),
        estimator=parse_json(str, stored["estimator"], "estimator"),
        rotation=_optional(record, "rotation", (3, 3)),
        translation=_optional(record, "translation", (3,)),
    )


def _judgement(record: Mapping[str, Any]) -> Verdict | None:
    if record.get("verdict") is None:
        return None
    stored = {name: record[name] for name in ("verdict", "probability", "log10_nfa", "evidence")}
    found: Verdict = parse_json(Verdict, stored, "verdict")
    if not 0.0 <= found.probability <= 1.0:
        raise ValueError(f"the probability is {found.probability}")
    return found


def _inliers(values: Any) -> npt.NDArray[np.bool_]:
    array = np.asarray(values)
    if array.size and array.dtype.kind != "b":
        raise ValueError(f"inliers are {array.dtype}, not booleans")
    return array.astype(bool)


def _optional(record: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64] | None:
    if record.get(name) is None:
        return None
    array = _numbers(record[name]).astype(np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} has the shape {array.shape}, or numbers that are not finite")
    return array
