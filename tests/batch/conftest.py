"""Small images with true overlaps, and journals filled by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from support.pictures import texture

from matchrt.batch.journal import Journal
from matchrt.batch.results import Found, ImageFacts, ListedPair, Result

SIZE = (120, 160)
CORNERS = ((0, 0), (24, 8), (40, 24), (8, 32), (32, 0))


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A folder with `db/0.png` to `db/4.png`, crops of one texture at CORNERS (x, y); `db/3.png` is cut off."""
    whole = texture(200, 240)
    folder = tmp_path / "images" / "db"
    folder.mkdir(parents=True)
    for index, (x, y) in enumerate(CORNERS):
        crop = whole[y : y + SIZE[0], x : x + SIZE[1]]
        PILImage.fromarray(np.ascontiguousarray(crop)).save(folder / f"{index}.png")
    damaged = folder / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:400])
    return tmp_path / "images"


@pytest.fixture
def pair_list(scene: Path) -> Path:
    """All pairs of the scene's images, one of them listed again, turned round."""
    names = [f"db/{index}.png" for index in range(len(CORNERS))]
    lines = [f"{first} {second}\n" for i, first in enumerate(names) for second in names[i + 1 :]]
    path = scene.parent / "pairs.txt"
    path.write_text("# pairs\n" + "".join(lines) + "db/1.png db/0.png\n", encoding="utf-8")
    return path


def found(points0: np.ndarray, points1: np.ndarray, scores: np.ndarray) -> Found:
    facts = ImageFacts(*SIZE, 1, "content")
    return Found(points0.astype(np.float32), points1.astype(np.float32), scores.astype(np.float32), facts, facts)


@pytest.fixture
def filled(tmp_path: Path) -> Callable[[], Journal]:
    """Opens a journal of three images a.png, sub/b.png, c.png whose points move by (8, 4) from one to the next."""
    path = tmp_path / "filled.journal"
    generator = np.random.default_rng(3)
    points = generator.uniform((20, 20), (120, 100), (60, 2))
    scores = np.sort(generator.uniform(0.2, 1, 60))[::-1]
    names = ("a.png", "sub/b.png", "c.png")

    def open_it() -> Journal:
        journal = Journal(path)
        journal.begin({"pairs": "x"}, [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])])
        for pair in journal.waiting():
            moved = [points + np.array([8, 4]) * names.index(name) for name in (pair.first, pair.second)]
            journal.commit([Result(pair, found(moved[0], moved[1], scores))])
        return journal

    return open_it


@pytest.fixture
def pair() -> ListedPair:
    return ListedPair(1, "a.png", "sub/b.png")
