"""COLMAP's mapper in a process of its own: what ends it ends only this process.

It reads one line of JSON on stdin: {"database", "images", "part", "mapper"}. It writes lines of JSON to stdout:
{"registered", "images"} when an image is registered, and at last {"images", "models"}. The models are in the folder
`part` then, under their numbers. If stdin ends, the parent is gone, and this process ends at once.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

_SEED = 0
_WARNING = 1
# Images of a model; COLMAP's own 10 would give small folders no map.
_SMALLEST_MODEL = 3


def main() -> None:
    """Answers one request."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # whatever COLMAP prints must not be taken for an answer
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    say(_map(say=say, **request))
    os._exit(0)  # COLMAP's threads may be at work still


def _map(database: str, images: str, part: str, mapper: str, say: Any) -> dict[str, Any]:
    import pycolmap

    pycolmap.logging.minloglevel = max(pycolmap.logging.minloglevel, _WARNING)
    with pycolmap.Database.open(database) as base:
        count = base.num_images()
    work = Path(part) / "work"
    work.mkdir()
    registered = 0

    def one_more() -> None:
        nonlocal registered
        registered = min(count, registered + 1)
        say({"registered": registered, "images": count})

    if mapper == "incremental":
        options = pycolmap.IncrementalPipelineOptions()
        options.random_seed, options.min_model_size = _SEED, _SMALLEST_MODEL
        found = pycolmap.incremental_mapping(database, images, work, options, next_image_callback=one_more)
    else:
        options = pycolmap.GlobalPipelineOptions()
        options.random_seed = _SEED
        found = pycolmap.global_mapping(database, images, work, options)
    models = sorted(found.values(), key=lambda model: -model.num_reg_images())
    facts = []
    for number, model in enumerate(models):
        folder = Path(part) / str(number)
        folder.mkdir()
        model.write(folder)
        _require_whole(folder, model)
        facts.append(
            {
                "registered": int(model.num_reg_images()),
                "points": int(model.num_points3D()),
                "reprojection_px": round(float(model.compute_mean_reprojection_error()), 4),
                "track_length": round(float(model.compute_mean_track_length()), 4),
            }
        )
    shutil.rmtree(work, ignore_errors=True)
    return {"images": count, "models": facts}


def _require_whole(folder: Path, model: Any) -> None:
    """Raises OSError if a model that was written is not the one that is read back: COLMAP does not tell a full disk."""
    import pycolmap

    def facts(one: Any) -> tuple[int, ...]:
        return one.num_reg_images(), one.num_points3D(), one.compute_num_observations(), one.num_cameras()

    try:
        whole = facts(pycolmap.Reconstruction(folder)) == facts(model)
    except Exception:  # COLMAP raises what its parts happen to raise for a file that is cut off
        whole = False
    if not whole:
        raise OSError("the disk is full or failing, and a model cannot be read back")


def _end_with_parent() -> None:
    sys.stdin.buffer.read(1)
    os._exit(1)


if __name__ == "__main__":
    main()
