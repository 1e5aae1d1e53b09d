"""Chooses the pairs of images that a build is judged on: made ones, the package's photographs, and the user's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from matchrt.bench.folder import HomographyPair
from matchrt.bench.pairs import JudgedPair, user_pairs
from matchrt.building.calibration.pairs import CalibrationPairs
from matchrt.building.textures import texture_pairs
from matchrt.families.registry import is_dense
from matchrt.manifest import EngineManifest
from matchrt.runtime.bundled import photographs_folder

# The name of the set of the package's photographs.
PHOTOGRAPHS = "photographs"
# More of the user's pairs hardly change the verdict, and they take time.
_MOST = 16


def judging_pairs(
    manifest: EngineManifest, calibration: CalibrationPairs | None, given: Path | None
) -> list[JudgedPair]:
    """The pairs that judge an engine.

    manifest: of the fp32 engine.
    calibration: of int8 and fp8, whose judging pairs come first; None for other precisions, which are judged on
        textures, because these are matched with random weights too.
    given: the user's pairs, as `user_pairs` takes them; None for none.
    Errors: pairs-*, eval-*.
    """
    few = is_dense(manifest.family)  # a pair takes a minute on a CPU
    if calibration is not None:
        first = list(calibration.judging[:2] if few else calibration.judging)
    else:
        first = texture_pairs(manifest.input, manifest.matching.coarse_stride, count=1 if few else 3)
    return [*first, *photograph_pairs(), *([] if given is None else user_pairs(given)[:_MOST])]


def photograph_pairs() -> list[JudgedPair]:
    """The package's photographs, with their known homographies. Raises nothing."""
    folder = photographs_folder()
    facts = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    return [_photographs(folder, entry) for entry in facts]


def _photographs(folder: Path, entry: dict[str, object]) -> JudgedPair:
    first, second = folder / str(entry["image0"]), folder / str(entry["image1"])
    sizes = [(int(height), int(width)) for height, width in entry["sizes"]]  # type: ignore[attr-defined]
    matrix = np.array(entry["homography"], np.float64)
    return JudgedPair(first, second, HomographyPair(first.stem, PHOTOGRAPHS, first, second, matrix, *sizes))
