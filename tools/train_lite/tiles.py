"""The pool of square texture tiles: photographs, textures, drawn tiles."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from tools.train_lite.mipmaps import Mipmaps, Tile, build_mipmaps
from tools.train_lite.procedural import procedural_tile
from tools.train_lite.similar import group_name, similar_tiles


def squares(path: Path, size: int) -> list[Tile]:
    """A photograph as square tiles `[size,size,3]`, RGB: one, or two that overlap where it is oblong."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} is not an image")
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    side = min(height, width)
    offsets = [0.5] if max(height, width) < 1.2 * side else [0.0, 1.0]
    tiles = []
    for offset in offsets:
        y, x = int((height - side) * offset), int((width - side) * offset)
        square = image[y : y + side, x : x + side]
        method = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
        tiles.append(np.asarray(cv2.resize(square, (size, size), interpolation=method), dtype=np.uint8))
    return tiles


PHOTO_WEIGHT = 3


@dataclass(frozen=True)
class Pool:
    """The tiles, and `table`: tile indices, likelier tiles more often.

    group `[count]`: equal for tiles that may show the same things; similar `[count,K]`: tiles of other groups that look
    most alike.
    """

    mipmaps: Mipmaps
    table: Tensor
    count: int
    group: Tensor
    similar: Tensor


def load_pool(pack: Path, split: str, size: int, drawn: int, workers: int, device: torch.device) -> Pool:
    """All tiles of a split, and `drawn` procedural ones. The order depends on file names alone."""
    paths = sorted(pack.glob(f"{split}-*.webp"))
    if not paths:
        raise ValueError(f"no {split} photographs in {pack}; run collect_photos first")
    first_seed = 0 if split == "train" else 1_000_000
    found: list[Tile] = []
    table: list[int] = []
    groups: list[str] = []
    # Decoding runs outside the interpreter's lock, drawing inside: threads for one, processes for the other.
    with ProcessPoolExecutor(workers, get_context("spawn")) as processes, ThreadPoolExecutor(workers) as threads:
        seeds = range(first_seed, first_seed + drawn)
        drawings = processes.map(partial(procedural_tile, size=size), seeds, chunksize=4)
        for path, tiles in zip(paths, threads.map(partial(squares, size=size), paths), strict=True):
            weight = PHOTO_WEIGHT if "-photo-" in path.name else 1
            table += [len(found) + index for index in range(len(tiles))] * weight
            found += tiles
            groups += [group_name(path.name)] * len(tiles)
        table += range(len(found), len(found) + drawn)
        found += drawings
    groups += [f"drawn {seed}" for seed in seeds]
    names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    group = torch.tensor([names[name] for name in groups], device=device)
    mipmaps = build_mipmaps(found, device)
    return Pool(mipmaps, torch.tensor(table, device=device), len(found), group, similar_tiles(mipmaps, group))
