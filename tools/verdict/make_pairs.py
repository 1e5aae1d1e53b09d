"""Makes pairs of images whose truth is known, in a folder: true ones drawn from scenes, and unrelated ones.

python -m tools.verdict.make_pairs --pack PHOTOGRAPHS --out PAIRS --split fit
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from tools.train_lite.pairs import STRIDE, Recipe, Shape, make_pairs
from tools.train_lite.photometric import Strength, degrade
from tools.train_lite.scene import Dice, Difficulty
from tools.train_lite.tiles import Pool, build_mipmaps, similar_tiles, squares
from tools.verdict.drawn import DRAWN
from tools.verdict.photographs import Photograph, Split, alike, differ, split_of

Picture = NDArray[np.uint8]
# Kinds of unrelated pairs, and how many of a hundred are of each.
UNRELATED = {
    "photographs": 24,
    "alike": 26,
    "textures": 12,
    "regions": 8,
    "text": 6,
    "facade": 6,
    "forest": 4,
    "tiles": 5,
    "noise": 4,
    "blank": 2,
    "photograph-noise": 3,
}
# Two views show the same thing where at least this share of both is seen in the other.
OVERLAP = 0.15
_TILE = 512


@dataclass(frozen=True)
class Pair:
    """A pair: grey images [H, W], and for true ones where each cell's pixel of image 0 is in image 1 (NaN: unseen)."""

    kind: str
    images: tuple[Picture, Picture]
    overlap: float
    seen: bool
    there: NDArray[np.float32] | None = None


def true_pairs(photographs: list[Photograph], size: tuple[int, int], seed: int, recipe: Recipe) -> Iterator[Pair]:
    """Endless views of scenes. Those whose views share less than OVERLAP are left out."""
    generator = torch.Generator().manual_seed(seed)
    groups = [[one for one in photographs if one.seen is seen] for seen in (True, False)]
    pools = [(_pool(group), seen) for group, seen in zip(groups, (True, False), strict=True) if group]
    while True:
        for pool, seen in pools:
            made = make_pairs(pool, generator, Shape(4, size, size), recipe)
            for row in range(4):
                truth = made.truth
                overlap = min(float(truth.known0[row].float().mean()), float(truth.known1[row].float().mean()))
                if overlap < OVERLAP:
                    continue
                images = tuple(_bytes(image[row, 0]) for image in (made.image0, made.image1))
                columns = size[1] // STRIDE
                cell = truth.nearest0[row]
                there = STRIDE * torch.stack([cell % columns, cell // columns], dim=1) + truth.offset[row]
                there = torch.where(truth.known0[row][:, None], there, torch.nan)
                yield Pair("scene", (images[0], images[1]), overlap, seen, there.numpy().astype(np.float32))


def _pool(photographs: list[Photograph]) -> Pool:
    cut = [squares(one.path, _TILE) for one in photographs]
    tiles = [tile for some in cut for tile in some]
    group = torch.tensor([number for number, some in enumerate(cut) for _ in some])
    mipmaps = build_mipmaps(tiles, torch.device("cpu"))
    return Pool(mipmaps, torch.arange(len(tiles)), len(tiles), group, similar_tiles(mipmaps, group))


def _bytes(image: torch.Tensor) -> Picture:
    return np.asarray((image * 255).round().clamp(0, 255).numpy(), np.uint8)


def unrelated_pairs(photographs: list[Photograph], size: tuple[int, int], seed: int) -> Iterator[Pair]:
    """Endless pairs that show different things, in the shares of UNRELATED."""
    dice, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    names, weights = list(UNRELATED), np.array(list(UNRELATED.values()), float)
    pictures = [one for one in photographs if "-photo-" in one.path.name]
    textures = [one for one in photographs if "-texture-" in one.path.name]
    while True:
        kind = str(dice.choice(names, p=weights / weights.sum()))
        if kind in DRAWN:
            images, seen = (DRAWN[kind](dice, *size), DRAWN[kind](dice, *size)), False
        else:
            group = textures if kind == "textures" else pictures
            first = group[int(dice.integers(0, len(group)))]
            images, seen = _unrelated(kind, first, group, size, dice), first.seen
        if images is not None:
            yield Pair(kind, (_taken(images[0], generator), _taken(images[1], generator)), 0.0, seen)


def _unrelated(
    kind: str, first: Photograph, group: list[Photograph], size: tuple[int, int], dice: np.random.Generator
) -> tuple[Picture, Picture] | None:
    if kind == "photograph-noise":
        return first.crop(dice, size), DRAWN["noise"](dice, *size)
    if kind == "regions":
        sides = sorted(first.pixels.shape[:2])
        return (
            None
            if sides[1] < 1.3 * sides[0]
            else (first.crop(dice, size, (0.0, 0.47)), first.crop(dice, size, (0.53, 1)))
        )
    second = group[int(dice.integers(0, len(group)))] if kind == "photographs" else alike(first, group, dice)
    return (first.crop(dice, size), second.crop(dice, size)) if differ(first, second) else None


def _taken(image: Picture, generator: torch.Generator) -> Picture:
    """The picture in grey, as a camera takes it, in the way of the true pairs."""
    grey = torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[None, None].float() / 255
    strength = replace(Strength(), modality=0.08)
    return _bytes(degrade(Dice(generator, torch.device("cpu"), 1), grey, strength)[0, 0])


def write(folder: Path, number: int, pair: Pair) -> dict[str, Any]:
    """Writes the images and the truth of a pair; gives its row of the list."""
    name = f"{number:05d}"
    row = {"id": name, "kind": pair.kind, "true": pair.there is not None, "overlap": round(pair.overlap, 3)}
    for side, image in enumerate(pair.images):
        cv2.imwrite(str(folder / f"{name}_{side}.png"), image)
    if pair.there is not None:
        np.save(folder / f"{name}_there.npy", pair.there)
    return row | {"seen_in_training": pair.seen}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True, help="folder of photographs that collect_photos made")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pairs")
    parser.add_argument("--split", choices=("fit", "test"), required=True)
    parser.add_argument("--true", type=int, default=250, help="number of true pairs")
    parser.add_argument("--unrelated", type=int, default=350, help="number of unrelated pairs")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="height and width of the views")
    parser.add_argument("--photographs", type=int, default=120, help="at most so many photographs, for memory")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    split: Split = arguments.split
    seed = 1 if split == "fit" else 2
    paths = sorted(path for path in arguments.pack.glob("*.webp") if split_of(path) == split)
    dice = np.random.default_rng(seed)
    chosen = [Photograph.read(paths[index]) for index in sorted(dice.permutation(len(paths))[: arguments.photographs])]
    # A person would say that both show the same thing: neither looks like another sensor's picture in most pairs.
    recipe = Recipe(replace(Difficulty(), negative=0.0), replace(Strength(), modality=0.08), 0.08)
    size = (arguments.size[0], arguments.size[1])
    rows = []
    sources = (
        (true_pairs(chosen, size, seed, recipe), arguments.true),
        (unrelated_pairs(chosen, size, seed), arguments.unrelated),
    )
    for source, count in sources:
        for _, pair in zip(range(count), source, strict=False):
            rows.append(write(arguments.out, len(rows), pair))
    (arguments.out / "pairs.json").write_text(json.dumps(rows, indent=0))
    print(f"{len(rows)} pairs in {arguments.out}")


if __name__ == "__main__":
    main()
