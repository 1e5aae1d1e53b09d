"""hloc's HDF5 files: the names of groups, the datasets in them, and the file of raw matches that `match` writes.

| file     | group                                        | datasets                                                |
| -------- | -------------------------------------------- | ------------------------------------------------------- |
| features | the image's name, '/' in it as nested groups | keypoints float32 [M, 2]; dense: score float32 [M];     |
|          |                                              | sparse: scores float32 [M], image_size int64 (w, h)     |
| matches  | `name0/name1`, in each '/' replaced by '-'   | raw, dense: keypoints0, keypoints1 float32 [N, 2],      |
|          |                                              | scores float32 [N]                                      |
|          |                                              | dense, sparse: matches0 int32, matching_scores0 float16 |

raw     hloc/match_dense.py writes this before it aggregates, and so does `matchrt match`. `matches0` is missing,
        because hloc's aggregation makes it, and fails if it exists.
dense   the result of hloc/match_dense.py. `matches0` ends with the last matched keypoint.
sparse  the result of extract_features.py and match_features.py without descriptors, which these networks do not have.
        `matches0` has a value for every keypoint.

`matches0[i]` is the keypoint of image 1 that keypoint i of image 0 matches, -1 for none. Keypoints have the centre of
the top-left pixel at (0, 0), as ours do. hloc adds COLMAP's 0.5 on import, so nothing is shifted here.

The group of a pair that was judged has the attributes `verdict` (text), `probability` and `log10_nfa` (floats), and
`turned1` (degrees clockwise by which the upright image 1 was turned before the network saw it), which hloc ignores.

All keypoints are in the pixels that the image's file stores, because hloc and COLMAP read images without EXIF.

Errors: package-missing (h5py), matches-name (an image name that cannot be a name in the file), output-format (the
existing file is not HDF5), output-unwritable, matches-orientation.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt._util import atomic
from matchrt._util.reading import is_regular
from matchrt.errors import MatchRTError, missing_package
from matchrt.runtime.match_data import MatchData
from matchrt.runtime.record import metadata

SUFFIXES = (".h5", ".hdf5")

Datasets = Mapping[str, npt.NDArray[Any]]
Root = str | os.PathLike[str] | None
Float32Array = npt.NDArray[np.float32]


def require_h5py() -> Any:
    """Returns the module h5py. Error: package-missing."""
    try:
        import h5py
    except ImportError as error:
        raise missing_package("h5py", "hdf5", "Writing .h5 files") from error
    return h5py


# ------------------------------------------------------------------------------------------------------- names


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8. Names of files may be other bytes, which Python holds as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def flat_name(name: str) -> str:
    """An image's name as one part of a pair's group: each '/' becomes '-'. Error: matches-name."""
    flat = name.replace("/", "-")
    if flat in (".", "..") or "\0" in flat or not is_text(name):
        raise MatchRTError("matches-name", f"The image name {name!r} cannot be stored.", "Give the image a name.")
    return flat


def pair_group(name0: str, name1: str) -> str:
    """The name of a pair's group in the file of matches. Error: matches-name."""
    return f"{flat_name(name0)}/{flat_name(name1)}"


def name_below(root: Root, name: str) -> str:
    """The name of an image relative to the folder `root`; unchanged if root is None.

    Error: matches-name if the image is not under root.
    """
    path = PurePosixPath(name)
    if root is None:
        return path.as_posix()
    try:
        return path.relative_to(Path(root).as_posix()).as_posix()
    except ValueError as error:
        raise MatchRTError(
            "matches-name", f"The image '{name}' is not under the root folder '{root}'.", "Name another root."
        ) from error


# ---------------------------------------------------------------------------------------------------- datasets


def write_group(file: Any, name: str, datasets: Datasets) -> Any:
    """Writes arrays into a new group and returns it. A group of that name is replaced.

    file: an open h5py file. Raises what h5py raises.
    """
    if name in file:
        del file[name]
    group = file.create_group(name)
    for key, values in datasets.items():
        group.create_dataset(key, data=values)
    return group


def write_verdict(group: Any, verdict: str, probability: float, log10_nfa: float, turned1: int) -> None:
    """Writes the verdict on a pair, and the turn that it was found with, as attributes of its group.

    hloc ignores them. group: of an open h5py file. probability: 0..1. log10_nfa: as in `Verdict`. turned1: degrees, as
    in `Provenance`. Raises what h5py raises.
    """
    group.attrs["verdict"] = verdict
    group.attrs["probability"] = probability
    group.attrs["log10_nfa"] = log10_nfa
    group.attrs["turned1"] = turned1


def raw_matches(keypoints0: Float32Array, keypoints1: Float32Array, scores: Float32Array) -> Datasets:
    """The datasets of a pair of raw matches. Raises nothing.

    keypoints0, keypoints1: float32 [N, 2], pixels.
    scores: float32 [N] in 0..1.
    """
    return {"keypoints0": keypoints0, "keypoints1": keypoints1, "scores": scores}


def indexed_matches(matches: npt.NDArray[np.integer], scores: Float32Array, length: int | None) -> Datasets:
    """The datasets of a pair whose matches are indices of keypoints. Raises nothing for indices in range.

    matches: integers [K, 2], indices of keypoints of image 0 and of image 1.
    scores: float32 [K] in 0..1.
    length: how many keypoints of image 0 have a value; None ends after the last matched one.
    """
    if length is None:
        length = int(matches[:, 0].max()) + 1 if len(matches) else 0
    matches0, scores0 = np.full(length, -1, np.int32), np.zeros(length, np.float16)
    matches0[matches[:, 0]] = matches[:, 1]
    scores0[matches[:, 0]] = scores
    return {"matches0": matches0, "matching_scores0": scores0}


def dense_keypoints(points: Float32Array, scores: Float32Array) -> Datasets:
    """The datasets of an image, in hloc's dense layout. Raises nothing.

    points: float32 [M, 2], pixels.
    scores: float32 [M] in 0..1.
    """
    return {"keypoints": points, "score": scores}


def sparse_keypoints(points: Float32Array, scores: Float32Array, height: int, width: int) -> Datasets:
    """The datasets of an image, in hloc's sparse layout. Raises nothing.

    points: float32 [M, 2], pixels.
    scores: float32 [M] in 0..1.
    height, width: of the image, pixels.
    """
    return {"keypoints": points, "scores": scores, "image_size": np.array([width, height], np.int64)}


# ------------------------------------------------------------------------------------- the file of raw matches


def save_pairs(pairs: Sequence[MatchData], path: str | os.PathLike[str], *, root: Root = None) -> None:
    """Adds pairs to a file of raw matches, and creates it if there is none. A pair that is there is replaced.

    The file is extended in memory, written beside the old one and renamed. So an interruption leaves the old file
    whole, and so does a full disk, after which HDF5 would end the process. Give many pairs in one call, because each
    call writes the whole file. Only one writer may work at a time: of two, the later one wins. The
    group's attribute `matchrt` holds the metadata of the .npz format as JSON; hloc ignores it.
    root: image names are written relative to this folder, as hloc wants them. Errors: those of the module.
    """
    h5py = require_h5py()
    target = Path(path)
    named = [
        (pair_group(*(name_below(root, image.name) for image in (found.image0, found.image1))), found)
        for found in pairs
    ]
    _require_hdf5(target)
    present = target.read_bytes() if is_regular(target) else b""
    image = io.BytesIO(present)
    try:
        with h5py.File(image, "r+" if present else "w") as file:
            for name, found in named:
                points = found.image0.stored_points(found.keypoints0), found.image1.stored_points(found.keypoints1)
                group = write_group(file, name, raw_matches(*points, found.scores))
                group.attrs["matchrt"] = json.dumps(_stored_metadata(found))
                if (judged := found.judgement) is not None:
                    turned1 = found.provenance.turned1
                    write_verdict(group, judged.verdict, judged.probability, judged.log10_nfa, turned1)
    except (OSError, RuntimeError, KeyError) as error:  # what is there is damaged behind its beginning
        raise _no_hdf5(target) from error
    atomic.write_bytes(target, image.getvalue())


def _stored_metadata(found: MatchData) -> dict[str, Any]:
    """The metadata of the .npz format, with sizes of the stored images, to which the file's keypoints belong."""
    record = metadata(found) | {"pixels": "stored"}
    for side, image in (("image0", found.image0), ("image1", found.image1)):
        height, width = image.stored_size()
        record[side] = {**record[side], "height": height, "width": width}
    return record


def check_pairs(path: str | os.PathLike[str], names: Iterable[str], root: Root = None) -> None:
    """Raises, before any work, what `save_pairs` would raise for images of these names after it.

    Errors: package-missing, output-format, matches-name.
    """
    _require_hdf5(Path(path))
    for name in names:
        flat_name(name_below(root, name))


def _require_hdf5(target: Path) -> None:
    h5py = require_h5py()
    if not is_regular(target):  # a pipe would make HDF5 wait; writing refuses what is there and is no file
        return
    try:
        with h5py.File(target, "r"):
            return
    except OSError as error:
        raise _no_hdf5(target) from error


def _no_hdf5(target: Path) -> MatchRTError:
    return MatchRTError(
        "output-format",
        f"'{target}' exists and is not a whole HDF5 file.",
        "Choose another name; it was left as it is.",
    )
