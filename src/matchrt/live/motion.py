"""Intrinsics of a camera as users give them, and the size of a rotation. Errors: intrinsics-format."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt._util.reading import read_regular
from matchrt._util.strict_json import read_json
from matchrt.errors import MatchRTError

_LARGEST_FILE = 1 << 20
_REMEDY = 'Give fx,fy,cx,cy in pixels, or a JSON file {"K": [[fx,0,cx],[0,fy,cy],[0,0,1]]}.'


def read_camera(text: str) -> npt.NDArray[np.float64]:
    """Intrinsics [3, 3] in pixels.

    text: `fx,fy,cx,cy`, or the path of a JSON file with the matrix `K`, or `K1` where there is none.
    Error: intrinsics-format; `geometry.estimate` checks the values.
    """
    parts = text.split(",")
    if len(parts) == 4:
        try:
            fx, fy, cx, cy = (float(part) for part in parts)
        except ValueError:
            pass
        else:
            return _matrix([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], f"'{text}'")
    try:
        raw = read_json(read_regular(Path(text), _LARGEST_FILE))
        return _matrix(raw["K"] if "K" in raw else raw["K1"], f"'{text}'")
    except OSError as error:
        raise MatchRTError("intrinsics-format", f"'{text}' cannot be read: {error.strerror}.", _REMEDY) from error
    except (ValueError, KeyError, TypeError) as error:
        raise MatchRTError("intrinsics-format", f"'{text}' gives no intrinsics: {error}.", _REMEDY) from error


def _matrix(values: Any, name: str) -> npt.NDArray[np.float64]:
    try:
        matrix = np.array(values, np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise MatchRTError("intrinsics-format", f"{name} gives no intrinsics with positive focal lengths.", _REMEDY)
    return matrix


def rotation_degrees(rotation: npt.NDArray[np.float64]) -> float:
    """The angle of a rotation [3, 3], in degrees 0..180. Raises nothing."""
    return math.degrees(math.acos(min(max((float(np.trace(rotation)) - 1) / 2, -1.0), 1.0)))
