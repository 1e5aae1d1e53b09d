"""The pairs of the comparison: those of an evaluation folder, changed photographs, and images of different places."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench.default_model.changes import Change, FloatArray, UInt8Array, all_changes
from matchrt.bench.folder import EvalFolder, PosePair, read_folder
from matchrt.runtime.image import read_image

# Photographs that are free for any use: NASA and SpaceX (public domain), CC0. They are those of scikit-image.
FREE = ("astronaut", "coffee", "chelsea", "rocket", "brick")
# Those that are changed: a person, a table, an animal.
CHANGED = FREE[:3]
NEAR_COVISIBILITY = 0.3
# Images of the same place stand in one group: two of different groups are unrelated.
_PLACES = {
    "box": ("box.png", "box_in_scene.png"),
    "dsc": ("DSC_0410.JPG", "DSC_0411.JPG"),
    "chartres": ("chartres.jpg",),
    "notre_dame": ("notre_dame.jpg",),
    "fresco": ("fsm.jpg", "sist_chapel.jpg"),
    "gcs": ("gcs_close.jpg", "gcs_far.jpg"),
    "london_bridge": ("london_bridge_19481797_2295892421.jpg", "london_bridge_78916675_4568141288.jpg"),
    "montmartre": ("montmartre_close.jpg", "montmartre_far.jpg"),
    "sacre_coeur": ("sacre_coeur1.jpg", "sacre_coeur_A.jpg"),
    "st_pauls": ("st_pauls_cathedral_30776973_2635313996.jpg", "st_pauls_cathedral_37347628_10902811376.jpg"),
    "toronto": ("toronto_A.jpg", "toronto_B.jpg"),
}
UNRELATED = 40


@dataclass(frozen=True, eq=False)
class Case:
    """A pair and what is known about it.

    id: unique. set: the table that it belongs to. value: its row there; empty for sets without rows.
    images: makes the two images, uint8 RGB `[H, W, 3]` or grey `[H, W]`.
    homography: from pixels of image 0 to pixels of image 1, [3, 3]; None if it is not known.
    pose: the pair with its relative pose; None if it is not known.
    """

    id: str
    set: str
    value: str
    images: Callable[[], tuple[UInt8Array, UInt8Array]]
    homography: FloatArray | None = None
    pose: PosePair | None = None


def all_cases(root: Path) -> list[Case]:
    """All pairs. root: the evaluation folder, as `matchrt bench --eval` takes it. Errors: eval-*."""
    return [*_folder_cases(read_folder(root)), *_changed(root), *_unrelated(root)]


def _read(first: Path, second: Path) -> Callable[[], tuple[UInt8Array, UInt8Array]]:
    return lambda: (_pixels(first), _pixels(second))


def _pixels(path: Path) -> UInt8Array:
    return read_image(path, apply_exif=False).pixels


def _folder_cases(folder: EvalFolder) -> Iterator[Case]:
    for pair in folder.homography:
        yield Case(pair.id, pair.set, "", _read(pair.image0, pair.image1), homography=pair.homography)
    for posed in folder.pose:
        yield Case(posed.id, posed.set, "", _read(posed.image0, posed.image1), pose=posed)
    for plain in folder.plain:
        name = "box" if plain.id == "ng/box" else plain.set
        if name in ("multimodal", "box"):
            yield Case(plain.id, name, "", _read(plain.image0, plain.image1))


def near(root: Path) -> set[str]:
    """Ids of the pairs with a known pose whose views are near: a covisibility from 0.3 on, and the stereo pair."""
    pairs = json.loads((root / "pose" / "pairs.json").read_text(encoding="utf-8"))["pairs"]
    return {pair["id"] for pair in pairs if pair.get("covisibility_at_least", 1.0) >= NEAR_COVISIBILITY}


def _changed(root: Path) -> Iterator[Case]:
    for change in all_changes():
        for name in CHANGED:
            path = root / "homography" / "synthetic" / f"{name}_0.jpg"
            original = _pixels(path)
            yield Case(
                f"{change.name}/{name}",
                change.set,
                change.value,
                partial(_pair, path, change, name),
                homography=change.of(original, name)[1],
            )


def _pair(path: Path, change: Change, name: str) -> tuple[UInt8Array, UInt8Array]:
    original = _pixels(path)
    return original, change.of(original, name)[0]


def _unrelated(root: Path) -> Iterator[Case]:
    """Pairs of images of different places, drawn from a seed, many of them of buildings."""
    groups: list[list[Path]] = [[root / "nogt" / name for name in names] for names in _PLACES.values()]
    groups += [[root / "homography" / "synthetic" / f"{name}_0.jpg"] for name in FREE]
    groups.append(sorted((root / "pose" / "reichstag").glob("*.jpg")))
    groups.append([root / "homography" / "v_dogman" / "1.ppm"])
    generator = np.random.default_rng(19)
    found: dict[str, Case] = {}
    while len(found) < UNRELATED:
        one, other = generator.choice(len(groups), 2, replace=False)
        first, second = (groups[k][int(generator.integers(len(groups[k])))] for k in (one, other))
        name = f"unrelated/{first.stem}__{second.stem}"
        found[name] = Case(name, "unrelated", "", _read(first, second))
    yield from found.values()
