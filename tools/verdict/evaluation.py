"""The evaluation's images as pairs whose truth is known: they only test, and nothing is fitted to them."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

# Pairs of the evaluation that show the same place under several names.
_SAME_PLACE = {"lg_sacre_coeur": "sacre_coeur", "roma_sacre_coeur": "sacre_coeur", "imm_montmartre": "sacre_coeur"}
# One image of every place is paired with one of every other place; buildings with each other in two images.
_BUILDINGS = (
    "sacre_coeur",
    "london_bridge",
    "st_pauls",
    "imm_gcs",
    "imm_fresco",
    "chartres",
    "notre_dame",
    "roma_toronto",
    "reichstag",
)


def evaluation_pairs(root: Path, every: int = 2) -> list[dict[str, Any]]:
    """Rows as those of `make_pairs`, with the paths of both images: all true pairs, then pairs of different places.

    every: of the pairs of places that are not both buildings, only each so many-th is taken, to save time.
    """
    places: dict[str, list[str]] = {}
    rows: list[dict[str, Any]] = []

    def true(kind: str, name: str, place: str, images: tuple[str, str]) -> None:
        paths = [str(root / image) for image in images]
        places.setdefault(place, []).extend(path for path in paths if path not in places.get(place, []))
        rows.append(_row(f"{kind}-{name.replace('/', '_')}", kind, True, paths))

    for kind in ("homography", "stereo", "multimodal", "nogt"):
        for pair in json.loads((root / kind / "pairs.json").read_text())["pairs"]:
            images = pair["image0"], pair["image1"]
            if pair.get("negative"):
                for image in images:
                    places[Path(image).stem] = [str(root / image)]
                continue
            place = _SAME_PLACE.get(pair["id"], pair["id"].rsplit("_", 1)[0] if kind == "homography" else pair["id"])
            true(kind, pair["id"], "v_dogman" if "v_dogman" in pair["id"] else place, images)
    pose = json.loads((root / "pose/pairs.json").read_text())
    for pair in pose["pairs"]:
        files = [pose["images"][pair[side]]["file"] for side in ("image0", "image1")]
        true("pose", pair["id"][:60], pair["set"], (files[0], files[1]))
    for index, (first, second) in enumerate(combinations(sorted(places), 2)):
        both = first in _BUILDINGS and second in _BUILDINGS
        if index % every and not both:
            continue
        for number in range(2 if both else 1):
            paths = [places[place][number % len(places[place])] for place in (first, second)]
            rows.append(
                _row(f"no-{first}-{second}-{number}".replace("/", "_"), "buildings" if both else "places", False, paths)
            )
    return rows


def _row(name: str, kind: str, is_true: bool, paths: list[str]) -> dict[str, Any]:
    return {"id": name, "kind": kind, "true": is_true, "image0": paths[0], "image1": paths[1]}
