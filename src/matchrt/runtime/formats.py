"""Matches in files: one entry of `FORMATS` for each suffix.

.npz   arrays keypoints0, keypoints1 (float32 [N, 2]), scores (float32 [N]); after `verify`, inliers (bool [N]) and, if
       found, matrix, rotation, translation (float64); `meta`, a JSON string with the rest. It contains no pickles.
.json  the same as one object, readable anywhere; float32 values are written so that they read back exactly.
       Both hold keypoints in upright pixels, and say so (`pixels`, and each image's `orientation`); see `record`.
.h5    hloc's raw matches in stored pixels, see `hloc`. A pair that is in the file is replaced; all others stay.

Errors:

| code             | meaning                                                           |
| ---------------- | ----------------------------------------------------------------- |
| output-format    | the suffix is unknown, or the existing .h5 is not an HDF5 file    |
| output-unwritable| the folder cannot be written to                                   |
| matches-missing  | there is no such file to load, or it cannot be opened             |
| matches-format   | the file is not matches that matchrt wrote, or is damaged         |
| matches-name     | an image name that cannot be a name in an .h5 file                |
| matches-orientation | .h5 from matches of an older version, whose orientations are unknown |
| package-missing  | h5py is not installed                                             |
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt._util import atomic
from matchrt._util.npz import read_npz
from matchrt._util.reading import TooLargeError, read_regular
from matchrt._util.strict_json import read_json
from matchrt.errors import MatchRTError
from matchrt.runtime import hloc
from matchrt.runtime.hloc import Root
from matchrt.runtime.match_data import MatchData, MatchesT
from matchrt.runtime.record import arrays, from_record, metadata

# A file of a million matches has 60 MB.
_MOST_BYTES = 1 << 30


def save_matches(matches: MatchData, path: str | os.PathLike[str], *, root: Root = None) -> None:
    """Writes matches by suffix, atomically. A .npz or .json is replaced; in .h5 the pair is added or replaced.

    root: of .h5 only; image names are written relative to this folder, as hloc wants them.
    Errors: output-format, output-unwritable; for .h5 also matches-name, matches-orientation, package-missing.
    """
    target = Path(path)
    kind = FORMATS.get(target.suffix.lower())
    if kind is None:
        raise MatchRTError(
            "output-format", f"'{target}' has no known suffix for matches.", f"Use one of {', '.join(FORMATS)}."
        )
    kind.save(matches, target, root)


def load_matches(path: str | os.PathLike[str], kind: type[MatchesT]) -> MatchesT:
    """Reads what `save_matches` wrote as .npz or .json. Everything comes back exactly, provenance and geometry too.

    kind: the class of the result: `Matches` for users.

    Errors: matches-missing; matches-format, also for a suffix that is neither of the two.
    """
    source = Path(path)
    found = FORMATS.get(source.suffix.lower())
    if found is None or found.read is None:
        raise MatchRTError(
            "matches-format", f"'{source}': matches are loaded from .npz or .json.", "Save as .npz to load later."
        )
    try:
        data = read_regular(source, _MOST_BYTES)
    except TooLargeError as error:
        raise _format_error(source, str(error.strerror)) from error
    except OSError as error:
        raise MatchRTError(
            "matches-missing", f"Cannot read '{source}': {error.strerror}.", "Check the path."
        ) from error
    try:
        return from_record(found.read(data), kind)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _format_error(source, str(error)) from error
    except MatchRTError as error:  # the arrays are there, but are no matches
        raise _format_error(source, error.message) from error


def _format_error(source: Path, detail: str) -> MatchRTError:
    return MatchRTError(
        "matches-format",
        f"'{source}' does not hold matches, or is damaged: {detail}",
        "Match again and save the result.",
    )


# ------------------------------------------------------------------------------------------- npz, json


def _save_npz(matches: MatchData, target: Path, root: Root) -> None:
    atomic.write_bytes(target, _to_npz(matches))


def _save_json(matches: MatchData, target: Path, root: Root) -> None:
    atomic.write_text(target, _to_json(matches))


def _save_hloc(matches: MatchData, target: Path, root: Root) -> None:
    hloc.save_pairs([matches], target, root=root)


def _to_npz(matches: MatchData) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:  # as np.savez does, but without pickles
        for name, array in {"meta": np.array(json.dumps(metadata(matches))), **arrays(matches)}.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return buffer.getvalue()


def _to_json(matches: MatchData) -> str:
    values = {name: _listed(array) for name, array in arrays(matches).items()}
    return json.dumps(metadata(matches) | values, allow_nan=False) + "\n"


def _listed(array: npt.NDArray[Any]) -> Any:
    """Nested lists; float32 as the shortest decimal that reads back to it (12.3, not 12.300000190734863)."""
    if array.dtype != np.float32:
        return array.tolist()
    short = np.array([float(str(value)) for value in array.ravel()], np.float64)
    return short.reshape(array.shape).tolist()


def _npz_record(data: bytes) -> dict[str, Any]:
    found = read_npz(data, _MOST_BYTES)
    record: dict[str, Any] = read_json(str(found.pop("meta")))
    return record | found


def _json_record(data: bytes) -> dict[str, Any]:
    record = read_json(data)
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    return record


# --------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Format:
    """How matches are written to a file, and read back.

    save: writes the matches of one pair to a path; the third argument is the folder that image names start from.
    read: metadata and arrays from a file's bytes; None if matches are not loaded from such files.
    """

    save: Callable[[MatchData, Path, Root], None]
    read: Callable[[bytes], dict[str, Any]] | None = None


FORMATS: Mapping[str, Format] = {
    ".npz": Format(_save_npz, _npz_record),
    ".json": Format(_save_json, _json_record),
    **dict.fromkeys(hloc.SUFFIXES, Format(_save_hloc)),
}
