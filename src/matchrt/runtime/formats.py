"""Matches in files.

.npz   arrays keypoints0, keypoints1 (float32 [N, 2]), scores (float32 [N]); if verified, inliers (bool [N]) and, where
       found, matrix, rotation, translation (float64); `meta`, a JSON string with the rest. Contains no pickles.
.json  the same as one object, readable anywhere; float32 values are written so that they read back exactly.
.h5    hloc's layout of dense matches (hloc/match_dense.py before it aggregates): a group `name0/name1`, in each name
       '/' replaced by '-', with datasets keypoints0 [N, 2], keypoints1 [N, 2] and scores [N], float32. hloc keeps
       keypoints in these files with the centre of the top-left pixel at (0, 0), as we do, and adds the 0.5 of COLMAP
       only on import: nothing is shifted here. `matches0` and `matching_scores0` are not written: hloc's aggregation
       makes them, and fails where they exist. A pair that is in the file is replaced, all others stay.

Errors:

| code             | meaning                                                           |
| ---------------- | ----------------------------------------------------------------- |
| output-format    | the suffix is unknown, or the existing .h5 is not an HDF5 file    |
| output-unwritable| the folder cannot be written to                                   |
| matches-missing  | no such file to load, or it cannot be opened                      |
| matches-format   | the file is not matches that matchrt wrote, or is damaged         |
| matches-name     | an image name that cannot be a name in an .h5 file                |
| package-missing  | h5py is not installed                                             |
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt._util import atomic
from matchrt.errors import MatchRTError, missing_package
from matchrt.runtime.geometry import Geometry
from matchrt.runtime.matches import ImageRef, Matches, Provenance

FORMAT = "matchrt-matches"
VERSION = 1
HDF5_SUFFIXES = (".h5", ".hdf5")
SUFFIXES = (".npz", ".json", *HDF5_SUFFIXES)

_ARRAYS = ("keypoints0", "keypoints1", "scores")
_GEOMETRY_ARRAYS = ("inliers", "matrix", "rotation", "translation")


def save_matches(matches: Matches, path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> None:
    """Writes matches by suffix, atomically. .npz and .json are replaced; in .h5 the pair is added or replaced.

    root: .h5 only; image names are written relative to this folder, as hloc wants them.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix == ".npz":
        atomic.write_bytes(target, _to_npz(matches))
    elif suffix == ".json":
        atomic.write_text(target, _to_json(matches))
    elif suffix in HDF5_SUFFIXES:
        save_hdf5([matches], target, root=root)
    else:
        raise MatchRTError(
            "output-format", f"'{target}' has no known suffix for matches.", f"Use one of {', '.join(SUFFIXES)}."
        )


def load_matches(path: str | os.PathLike[str]) -> Matches:
    """Reads what `save_matches` wrote as .npz or .json; everything comes back exactly, provenance and geometry too."""
    source = Path(path)
    suffix = source.suffix.lower()
    if suffix not in (".npz", ".json"):
        raise MatchRTError(
            "matches-format", f"'{source}': matches are loaded from .npz or .json.", "Save as .npz to load later."
        )
    try:
        data = source.read_bytes()
    except OSError as error:
        raise MatchRTError("matches-missing", f"No '{source}': {error.strerror}.", "Check the path.") from error
    try:
        record = _npz_record(data) if suffix == ".npz" else _json_record(data)
        return _from_record(record)
    except (KeyError, TypeError, ValueError, AttributeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise _format_error(source, str(error)) from error
    except MatchRTError as error:  # the arrays are there, but are no matches
        raise _format_error(source, error.message) from error


def _format_error(source: Path, detail: str) -> MatchRTError:
    return MatchRTError(
        "matches-format", f"'{source}' does not hold matches, or is damaged: {detail}", "Match again and save anew."
    )


# ------------------------------------------------------------------------------------------- npz, json


def _meta(matches: Matches) -> dict[str, Any]:
    """All that is not an array."""
    geometry = matches.geometry
    return {
        "format": FORMAT,
        "version": VERSION,
        "image0": vars(matches.image0),
        "image1": vars(matches.image1),
        "timings_ms": dict(matches.timings),
        "provenance": vars(matches.provenance),
        "geometry": geometry
        and {"kind": geometry.kind, "threshold_px": geometry.threshold_px, "estimator": geometry.estimator},
    }


def _arrays(matches: Matches) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {name: getattr(matches, name) for name in _ARRAYS}
    found = ((name, getattr(matches.geometry, name, None)) for name in _GEOMETRY_ARRAYS)
    return arrays | {name: array for name, array in found if array is not None}


def _to_npz(matches: Matches) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:  # what np.savez does, less its way to pickles
        for name, array in {"meta": np.array(json.dumps(_meta(matches))), **_arrays(matches)}.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return buffer.getvalue()


def _to_json(matches: Matches) -> str:
    arrays = {name: _listed(array) for name, array in _arrays(matches).items()}
    return json.dumps(_meta(matches) | arrays, allow_nan=False) + "\n"


def _listed(array: npt.NDArray[Any]) -> Any:
    """Nested lists; float32 as the shortest decimal that reads back to it (12.3, not 12.300000190734863)."""
    if array.dtype != np.float32:
        return array.tolist()
    short = np.array([float(str(value)) for value in array.ravel()], np.float64)
    return short.reshape(array.shape).tolist()


def _npz_record(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is not an .npz archive")
        record: dict[str, Any] = json.loads(str(archive["meta"]))
        return record | {name: archive[name] for name in archive.files if name != "meta"}


def _json_record(data: bytes) -> dict[str, Any]:
    record = json.loads(data)
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    return record


def _from_record(record: Mapping[str, Any]) -> Matches:
    if record.get("format") != FORMAT or record.get("version") != VERSION:
        raise ValueError(f"format {record.get('format')!r}, version {record.get('version')!r} is not known")
    made_by = dict(record["provenance"])
    for name in ("network_size0", "network_size1"):
        height, width = made_by[name]
        made_by[name] = (int(height), int(width))
    return Matches(
        keypoints0=_points(record["keypoints0"]),
        keypoints1=_points(record["keypoints1"]),
        scores=np.asarray(record["scores"], np.float32),
        image0=ImageRef(**record["image0"]),
        image1=ImageRef(**record["image1"]),
        timings=record["timings_ms"],
        provenance=Provenance(**made_by),
        geometry=_geometry(record),
    )


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


# ------------------------------------------------------------------------------------------------ hdf5


def save_hdf5(
    pairs: Sequence[Matches], path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None
) -> None:
    """Adds pairs to an .h5 file in hloc's dense layout (module docstring), creating it where there is none.

    The file is copied, the copy is extended and renamed: an interruption leaves the old file whole. Give many pairs in
    one call, because each call copies the file. One writer at a time: of two, the later wins.
    The group's attribute `matchrt` holds the metadata of the .npz format as JSON; hloc ignores it.
    """
    try:
        import h5py
    except ImportError as error:
        raise missing_package("h5py", "hdf5", "Writing .h5 files") from error
    target = Path(path)
    named = [(_pair_name(matches, root), matches) for matches in pairs]
    _require_hdf5(target)
    with atomic.atomic_path(target) as temporary:
        if target.exists():
            shutil.copyfile(target, temporary)
        with h5py.File(temporary, "r+" if target.exists() else "w") as file:
            for name, matches in named:
                if name in file:
                    del file[name]
                group = file.create_group(name)
                group.attrs["matchrt"] = json.dumps(_meta(matches))
                for array in _ARRAYS:
                    group.create_dataset(array, data=getattr(matches, array))


def check_hdf5(path: str | os.PathLike[str], names: Iterable[str], root: str | os.PathLike[str] | None = None) -> None:
    """Raises, before any work, what `save_hdf5` would raise after it for images of these names."""
    target = Path(path)
    _require_hdf5(target)
    for name in names:
        _hloc_name(name, root)


def _require_hdf5(target: Path) -> None:
    try:
        import h5py
    except ImportError as error:
        raise missing_package("h5py", "hdf5", "Writing .h5 files") from error
    if not target.exists():
        return
    try:
        with h5py.File(target, "r"):
            return
    except OSError as error:
        raise MatchRTError(
            "output-format",
            f"'{target}' exists and is not a whole HDF5 file.",
            "Choose another name; it was left as it is.",
        ) from error


def _pair_name(matches: Matches, root: str | os.PathLike[str] | None) -> str:
    return "/".join(_hloc_name(image.name, root) for image in (matches.image0, matches.image1))


def _hloc_name(name: str, root: str | os.PathLike[str] | None) -> str:
    path = PurePosixPath(name)
    if root is not None:
        try:
            path = path.relative_to(Path(root).as_posix())
        except ValueError as error:
            raise MatchRTError(
                "matches-name", f"The image '{name}' is not under the root folder '{root}'.", "Name another root."
            ) from error
    flat = path.as_posix().replace("/", "-")
    if flat in (".", "..") or "\0" in flat:
        raise MatchRTError("matches-name", f"The image name {name!r} cannot be stored.", "Give the image a name.")
    return flat
