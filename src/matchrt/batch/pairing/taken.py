"""Pairs of photographs that were taken near each other, in place or time.

COLMAP's own spatial pairing takes places from a database, and gives each image's nearest ones only; a test compares the
pairs. Here they come from the files' headers, and no database or package is needed.

Error: pairs-exif (fewer than two images say where, or when, they were taken).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from matchrt.batch.pairing.exif import Taken
from matchrt.batch.pairing.nearest import pairs_by_distance
from matchrt.batch.pairing.windows import IndexPair
from matchrt.errors import MatchRTError

# WGS 84: metres, and the flattening's e².
_EQUATOR, _ECCENTRICITY = 6_378_137.0, 6.694379990141e-3


def pairs_by_place(taken: Sequence[Taken], neighbours: int, max_distance: float) -> list[IndexPair]:
    """Each image with those taken nearest to it, at most `max_distance` metres away. Error: pairs-exif.

    The altitude counts. Images without a place are in no pair.
    """
    known = [number for number, one in enumerate(taken) if one.place is not None]
    places = np.array([one.place for one in taken if one.place is not None]).reshape(-1, 3)
    return _of_known(known, earth_centred(places), neighbours, max_distance, "where")


def pairs_by_time(taken: Sequence[Taken], neighbours: int, max_seconds: float | None) -> list[IndexPair]:
    """Each image with those taken nearest to it in time, at most `max_seconds` apart. Error: pairs-exif.

    Images without a time are in no pair.
    """
    known = [number for number, one in enumerate(taken) if one.seconds is not None]
    times = np.array([one.seconds for one in taken if one.seconds is not None]).reshape(-1, 1)
    return _of_known(known, times, neighbours, float("inf") if max_seconds is None else max_seconds, "when")


def earth_centred(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Latitude and longitude in degrees and altitude in metres [N, 3] as metres from the Earth's centre [N, 3]."""
    latitude, longitude = np.radians(places[:, :2].T)
    normal = _EQUATOR / np.sqrt(1 - _ECCENTRICITY * np.sin(latitude) ** 2)
    around = (normal + places[:, 2]) * np.cos(latitude)
    up = (normal * (1 - _ECCENTRICITY) + places[:, 2]) * np.sin(latitude)
    return np.stack([around * np.cos(longitude), around * np.sin(longitude), up], 1)


def _of_known(
    known: list[int], points: npt.NDArray[np.float64], neighbours: int, most: float, what: str
) -> list[IndexPair]:
    if len(known) < 2:
        raise MatchRTError(
            "pairs-exif",
            f"{len(known)} of the images say in their EXIF {what} they were taken; a pair takes two.",
            "Choose the pairs by retrieval or window.",
        )
    return [(known[i], known[j]) for i, j in pairs_by_distance(points, neighbours, most)]
