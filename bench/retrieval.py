"""Judges the descriptors of `matchrt pairs --by retrieval`: which of the true pairs are chosen among many images.

    python bench/retrieval.py PHOTOS [--engine eloftr-lite] [--scene FOLDER] [--compare] [--json FILE]

PHOTOS is a folder of photographs of different things, such as those that the bundled models were trained on. Two
sets are made of them. `made`: 200 photographs, five crops and views of each (turned up to 20 degrees, tilted, brighter
or darker, with noise); a pair is true if each of the two shows at least a quarter of what the other one shows.
`scene`: the photographs of one place in --scene, where every pair is true, among halves of all PHOTOS, which are
distractors.

It prints the share of the true pairs that are chosen, and the share of all pairs that these are. --compare does the
same with other descriptors of the same features: their mean, GeM, and VLAD with words of photographs that are in no
set; and with VLAD of dense RootSIFT.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from matchrt.batch.pairing.coarse import coarse_vectors
from matchrt.batch.pairing.describing import LONG_SIDE, describe_folder, small_images
from matchrt.batch.pairing.descriptor import Vocabulary
from matchrt.batch.pairing.nearest import pairs_by_similarity
from matchrt.batch.pool import pool_size
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.options import MatcherOptions

Array = npt.NDArray[Any]
Pairs = set[tuple[int, int]]

_SEED, _PHOTOGRAPHS, _VIEWS = 0, 200, 5
_LEAST_SHARE, _SIDE = 0.25, 480
_WORD_VECTORS = 128
_SIFT_STEP, _SIFT_SIZES = 12, (12, 24)


def make_views(photographs: Sequence[Path], folder: Path) -> list[tuple[str, str]]:
    """Writes the crops and views, and returns the true pairs by name."""
    dice = np.random.default_rng(_SEED)
    true = []
    for path in photographs:
        image = cv2.imread(str(path))
        seen = []
        for view in range(_VIEWS):
            name = f"{path.stem}_{view}.jpg"
            corners = _corners(dice, *image.shape[:2])
            cv2.imwrite(str(folder / name), _view(dice, image, corners), [cv2.IMWRITE_JPEG_QUALITY, 85])
            mask = np.zeros(image.shape[:2], np.uint8)
            cv2.fillConvexPoly(mask, corners.round().astype(np.int32), 1)
            for other, known in seen:
                both, most = (mask & known).sum(), max(mask.sum(), known.sum())
                if both >= _LEAST_SHARE * most:
                    true.append((other, name))
            seen.append((name, mask))
    return true


def _corners(dice: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """The corners of what a view shows, [4, 2], in pixels of the photograph."""
    share = dice.uniform(0.5, 0.85)
    size = np.array([share * width, share * height])
    start = dice.uniform(0, 1, 2) * ((width, height) - size)
    corners = start + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size + dice.uniform(-0.08, 0.08, (4, 2)) * size
    angle = np.radians(dice.uniform(-20, 20))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = (corners - corners.mean(0)) @ turn.T + corners.mean(0)
    return turned.clip(0, (width - 1, height - 1)).astype(np.float32)


def _view(dice: np.random.Generator, image: Array, corners: npt.NDArray[np.float32]) -> Array:
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    height, width = round(scale * height), round(scale * width)
    target = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    warp = cv2.getPerspectiveTransform(corners, target)
    view = cv2.warpPerspective(image, warp, (width, height), flags=cv2.INTER_AREA) / 255.0
    view = view ** dice.uniform(0.6, 1.6) * dice.uniform(0.7, 1.2) * 255
    return np.asarray((view + dice.normal(0, dice.uniform(0, 6), view.shape)).clip(0, 255).astype(np.uint8))


def make_scene(photographs: Sequence[Path], scene: Path, folder: Path) -> list[tuple[str, str]]:
    """Copies the scene and writes halves of all photographs beside it. Returns the true pairs by name."""
    names = []
    for path in sorted(scene.iterdir()):
        names.append(f"scene-{path.stem}.jpg")
        cv2.imwrite(str(folder / names[-1]), cv2.imread(str(path)))
    for path in photographs:
        image = cv2.imread(str(path))
        halves = np.array_split(image, 2, axis=int(image.shape[1] >= image.shape[0]))
        for number, half in enumerate(halves):
            cv2.imwrite(str(folder / f"{path.stem}_{number}.jpg"), half)
    return [(first, second) for index, first in enumerate(names) for second in names[index + 1 :]]


def figures(
    values: Array, names: Sequence[str], true: list[tuple[str, str]], neighbours: Sequence[int]
) -> dict[str, float]:
    """Shares in 0..1: of the true pairs that are chosen (`recall@K`), and of all pairs that are (`share@K`)."""
    number = {name: index for index, name in enumerate(names)}
    wanted = {tuple(sorted((number[first], number[second]))) for first, second in true}
    found = {}
    for count in neighbours:
        chosen = set(pairs_by_similarity(values, count, -1.0))
        found[f"recall@{count}"] = round(len(wanted & chosen) / len(wanted), 4)
        found[f"share@{count}"] = round(len(chosen) / (len(names) * (len(names) - 1) / 2), 4)
    return found


def others(
    matcher: Matcher, folders: Sequence[Path], training: Sequence[Path]
) -> Iterator[tuple[str, list[tuple[list[str], Array]]]]:
    """Other descriptors, by what they are called: of each folder, names and unit vectors."""
    stride = matcher.manifest.matching.coarse_stride

    def network(path: Path) -> Array:
        return coarse_vectors(matcher.features(path, on_host=True), stride)

    plain: dict[str, Callable[[Array], Array]] = {"mean": lambda x: x.mean(0), "GeM": _gem}
    for what, vectors in (("", network), ("dense RootSIFT, ", _root_sift)):
        dice = np.random.default_rng(_SEED)
        trained = Vocabulary.of([dice.permutation(vectors(path))[:_WORD_VECTORS] for path in training])
        ways = {f"{what}VLAD, trained words": trained.describe, **(plain if not what else {})}
        made: dict[str, list[tuple[list[str], Array]]] = {way: [] for way in ways}
        for folder in folders:
            paths = sorted(folder.iterdir())
            rows: dict[str, list[Array]] = {way: [] for way in ways}
            for path in paths:
                found = vectors(path)
                for way, describe in ways.items():
                    rows[way].append(describe(found))
            for way in ways:
                made[way].append(([path.name for path in paths], _unit(np.stack(rows[way]))))
        yield from made.items()


def _gem(vectors: Array) -> Array:
    """Generalised mean with exponent 3 of the positive and of the negative parts."""
    return np.concatenate([(part.clip(0) ** 3).mean(0) ** (1 / 3) for part in (vectors, -vectors)])


def _root_sift(path: Path) -> Array:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    scale = LONG_SIDE / max(image.shape)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    points = [
        cv2.KeyPoint(float(x), float(y), size)
        for size in _SIFT_SIZES
        for y in range(8, image.shape[0] - 8, _SIFT_STEP)
        for x in range(8, image.shape[1] - 8, _SIFT_STEP)
    ]
    _, found = cv2.SIFT_create().compute(image, points)
    return np.sqrt(found / np.maximum(found.sum(1, keepdims=True), 1e-6))


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def main() -> None:
    """Prints a line for each descriptor and set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--engine", default="eloftr-lite")
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    photographs = sorted(arguments.photos.iterdir())
    views = [path for path in photographs if "texture" not in path.name][:_PHOTOGRAPHS]
    training = [path for path in photographs if path not in views][::4]
    file = read_engine(arguments.engine)
    size = pool_size(file.manifest, None, None, None)
    options = small_images(file.manifest, MatcherOptions(threads=size.threads))
    told = []
    with tempfile.TemporaryDirectory() as place, Matcher(file, options) as matcher:
        sets: dict[str, tuple[Path, list[tuple[str, str]], tuple[int, ...]]] = {}
        made = Path(place) / "made"
        made.mkdir()
        sets["made"] = made, make_views(views, made), (20,)
        if arguments.scene is not None:
            scene = Path(place) / "scene"
            scene.mkdir()
            sets["scene"] = scene, make_scene(photographs, arguments.scene, scene), (5, 10, 20)

        def tell(way: str, name: str, names: list[str], values: Array, **more: float) -> None:
            _, true, neighbours = sets[name]
            found = {"descriptor": way, "set": name, "images": len(names), **more}
            told.append(found | figures(values, names, true, neighbours))
            print(json.dumps(told[-1]), flush=True)

        for name, (folder, *_) in sets.items():
            names = [path.name for path in sorted(folder.iterdir())]
            start = time.perf_counter()
            found = describe_folder(matcher, folder, names, Path(place) / f"{name}.descriptors", size)
            each = round(1000 * (time.perf_counter() - start) / len(names), 1)
            tell("VLAD, the folder's words", name, names, found.values, ms_an_image=each)
        if arguments.compare:
            for way, described in others(matcher, [folder for folder, *_ in sets.values()], training):
                for name, (names, values) in zip(sets, described, strict=True):
                    tell(way, name, names, values)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
