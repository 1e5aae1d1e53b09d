"""Matches as named values: arrays, and metadata that JSON can hold. The file formats write and read these.

Arrays: keypoints0, keypoints1 (float32 [N, 2]), scores (float32 [N]); after `verify`, inliers (bool [N]) and, if found,
    matrix [3, 3], rotation [3, 3], translation [3] (float64). Everything else is metadata.
Metadata `pixels` says whose pixels the arrays are in: `upright`, those of each image as its `orientation` (of EXIF)
    turns it; or `stored`, those that its file stores. `ImageRef.stored_points` makes the second from the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.runtime.geometry import Geometry
from matchrt.runtime.match_data import ImageRef, MatchData, MatchesT, Provenance
from matchrt.runtime.orientation import ORIENTATIONS

FORMAT = "matchrt-matches"
VERSION = 3
# Version 1 called the backend by another name. Versions 1 and 2 did not note orientations. Both are read.
_VERSION_1_BACKEND = "flavor"

_ARRAYS = ("keypoints0", "keypoints1", "scores")
_GEOMETRY_ARRAYS = ("inliers", "matrix", "rotation", "translation")


def metadata(matches: MatchData) -> dict[str, Any]:
    """Everything that is not an array, as JSON values. Raises nothing."""
    geometry = matches.geometry
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
    for name in ("network_size0", "network_size1"):
        height, width = made_by[name]
        made_by[name] = (int(height), int(width))
    image0, image1 = (_image(record[name], record["version"]) for name in ("image0", "image1"))
    return kind(
        keypoints0=_points(record["keypoints0"]),
        keypoints1=_points(record["keypoints1"]),
        scores=np.asarray(record["scores"], np.float32),
        image0=image0,
        image1=image1,
        timings=record["timings_ms"],
        provenance=Provenance(**made_by),
        geometry=_geometry(record),
    )


def _image(stored: Mapping[str, Any], version: int) -> ImageRef:
    image = ImageRef(**{"orientation": None, **stored} if version < VERSION else stored)
    if image.orientation is not None and image.orientation not in ORIENTATIONS:
        raise ValueError(f"orientation {image.orientation!r} is not known")
    return image


def _points(values: Any) -> npt.NDArray[np.float32]:
    array = np.asarray(values, np.float32)
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
        inliers=np.asarray(record["inliers"], bool),
        threshold_px=float(stored["threshold_px"]),
        estimator=str(stored["estimator"]),
        rotation=_optional(record, "rotation", (3, 3)),
        translation=_optional(record, "translation", (3,)),
    )


def _optional(record: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64] | None:
    if record.get(name) is None:
        return None
    array = np.asarray(record[name], np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape}")
    return array
