"""hloc's HDF5 files: keypoints of images, and matches of pairs as indices of keypoints.

| file     | group                                         | datasets                                               |
| -------- | --------------------------------------------- | ------------------------------------------------------ |
| features | the image's name, '/' in it as nested groups  | keypoints float32 [M, 2]; dense: score float32 [M];    |
|          |                                               | sparse: scores float32 [M], image_size int64 (w, h)    |
| matches  | `name0/name1`, in each '/' replaced by '-'    | matches0 int32, matching_scores0 float16; dense:       |
|          |                                               | keypoints0, keypoints1 float32 [N, 2], scores [N] too  |

`matches0[i]` is the keypoint of image 1 that keypoint i of image 0 matches, -1 for none. The dense layout is what
hloc/match_dense.py leaves behind, with `matches0` as long as the last matched keypoint asks; the sparse one is what
extract_features.py and match_features.py leave, with `matches0` for all keypoints, but for descriptors, which these
networks do not have. Keypoints have the centre of the top-left pixel at (0, 0): hloc adds COLMAP's 0.5 on import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from matchrt._util.atomic import atomic_path
from matchrt.batch.merged import ImageKeypoints, Merged, PairMatches
from matchrt.errors import MatchRTError, missing_package

Layout = Literal["dense", "sparse"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def require_h5py() -> Any:
    """The module. Error: package-missing."""
    try:
        import h5py
    except ImportError as error:
        raise missing_package("h5py", "hdf5", "Writing .h5 files") from error
    return h5py


def default_features(output: Path) -> Path:
    """Where keypoints go unless told otherwise: hloc names them so."""
    return output.with_name(f"feats_{output.name}")


def group_name(name0: str, name1: str) -> str:
    """A pair's group in the matches file."""
    return "/".join(name.replace("/", "-") for name in (name0, name1))


def require_distinct_names(names: list[str]) -> None:
    """Raises `matches-name` where two images would have one name in pairs' groups: a/b.jpg and a-b.jpg."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.replace("/", "-"), name)
        if other != name:
            raise MatchRTError(
                "matches-name",
                f"'{other}' and '{name}' have the same name in hloc's files.",
                "Rename one, or write a .db or .parquet file.",
            )


def write_hloc(merged: Merged, output: Path, features: Path, layout: Layout) -> None:
    """Writes both files, each atomically, the matches last. Errors: package-missing, output-unwritable."""
    h5py = require_h5py()
    with atomic_path(output, f".{output.name}.part") as part:
        with atomic_path(features, f".{features.name}.part") as features_part, h5py.File(features_part, "w") as file:
            for image in merged.images():
                _write_image(file, image, layout)
        with h5py.File(part, "w") as file:
            for pair in merged.pairs():
                _write_pair(file, pair, layout)


def _write_image(file: Any, image: ImageKeypoints, layout: Layout) -> None:
    group = file.create_group(image.name)
    group.create_dataset("keypoints", data=image.keypoints.points)
    if layout == "dense":
        group.create_dataset("score", data=image.keypoints.scores)
        return
    group.create_dataset("scores", data=image.keypoints.scores)
    group.create_dataset("image_size", data=np.array([image.width, image.height], np.int64))


def _write_pair(file: Any, pair: PairMatches, layout: Layout) -> None:
    group = file.create_group(group_name(pair.pair.first, pair.pair.second))
    if layout == "dense":
        group.create_dataset("keypoints0", data=pair.keypoints0)
        group.create_dataset("keypoints1", data=pair.keypoints1)
        group.create_dataset("scores", data=pair.raw_scores)
    last = int(pair.matches[:, 0].max()) + 1 if len(pair.matches) else 0
    length = pair.counts[0] if layout == "sparse" else last
    matches0, scores0 = np.full(length, -1, np.int32), np.zeros(length, np.float16)
    matches0[pair.matches[:, 0]] = pair.matches[:, 1]
    scores0[pair.matches[:, 0]] = pair.scores
    group.create_dataset("matches0", data=matches0)
    group.create_dataset("matching_scores0", data=scores0)
