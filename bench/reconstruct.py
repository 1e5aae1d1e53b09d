"""Reconstructs a folder of photographs with COLMAP from the matches of `matchrt match-many`, and counts the cameras.

    python bench/reconstruct.py IMAGES [--engine loftr-lite] [--poses pairs.json] [--seeds 5] [--json FILE]

All pairs are matched into a COLMAP database; pycolmap's incremental mapper then gets nothing but that database. It is
run once for each seed, because it chooses its first pair and its samples at random. Of the largest model: images
registered, points, mean length of tracks, reprojection error; with --poses (the format of `matchrt bench`'s folders:
`images` with `file` and `R_w2c`) the errors of rotation between all pairs of registered images, in degrees.
Options after `--` go to match-many.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

_ERROR = 2
Rotations = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Model:
    """The largest model of one run; rotations in degrees, None without true poses or with fewer than two images."""

    seed: int
    registered: int
    images: int
    points: int = 0
    track_length: float = 0.0
    reprojection_px: float = 0.0
    rotation_median: float | None = None
    rotation_max: float | None = None


def match(images: Path, engine: str, database: Path, options: list[str]) -> None:
    """Runs match-many on all pairs of the folder."""
    command = [sys.executable, "-m", "matchrt", "match-many", str(images), "--output", str(database), "--ignore-exif"]
    subprocess.run([*command, "--engine", engine, *options], check=True)


def reconstruct(images: Path, database: Path, seed: int, true: Rotations) -> Model:
    """One run of the mapper."""
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = seed
    options.min_model_size = 3
    with pycolmap.Database.open(database) as base:
        count = base.num_images()
    with tempfile.TemporaryDirectory() as folder:
        models = pycolmap.incremental_mapping(database, images, folder, options)
        if not models:
            return Model(seed, 0, count)
        best = max(models.values(), key=lambda model: model.num_reg_images())
        median, largest = rotation_errors(best, true)
        return Model(
            seed,
            best.num_reg_images(),
            count,
            best.num_points3D(),
            round(best.compute_mean_track_length(), 2),
            round(best.compute_mean_reprojection_error(), 3),
            median,
            largest,
        )


def rotation_errors(model: Any, true: Rotations) -> tuple[float | None, float | None]:
    """Median and largest angle between the estimated and the true relative rotations, in degrees."""
    found = {image.name: image.cam_from_world().rotation.matrix() for image in model.images.values() if image.has_pose}
    names = sorted(found.keys() & true.keys())
    errors = [
        angle(found[second] @ found[first].T @ (true[second] @ true[first].T).T)
        for index, first in enumerate(names)
        for second in names[index + 1 :]
    ]
    return (round(float(np.median(errors)), 3), round(max(errors), 3)) if errors else (None, None)


def angle(rotation: npt.NDArray[np.float64]) -> float:
    """Of a rotation matrix, in degrees."""
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def read_rotations(path: Path | None) -> Rotations:
    """World to camera, by file name."""
    if path is None:
        return {}
    entries = json.loads(path.read_text(encoding="utf-8"))["images"].values()
    return {Path(entry["file"]).name: np.array(entry["R_w2c"]) for entry in entries if "R_w2c" in entry}


def main() -> None:
    """Prints one line a seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--engine", default="loftr-lite")
    parser.add_argument("--poses", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    # argparse takes what stands after -- for the first positional arguments' rest, and only if no option is between.
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    arguments, options = parser.parse_args(given[:end]), given[end + 1 :]
    pycolmap.logging.minloglevel = _ERROR
    true = read_rotations(arguments.poses)
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        match(arguments.images, arguments.engine, database, options)
        models = [reconstruct(arguments.images, database, seed, true) for seed in range(arguments.seeds)]
    for model in models:
        turned = (
            "" if model.rotation_median is None else f", rotations {model.rotation_median} (≤ {model.rotation_max})"
        )
        print(
            f"seed {model.seed}: {model.registered} of {model.images} images, {model.points} points, tracks of "
            f"{model.track_length}, {model.reprojection_px} px{turned}"
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(model) for model in models], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
