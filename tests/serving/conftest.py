"""One real service for all tests of this folder, and what `matchrt match` says of the same pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image as PILImage
from support.pictures import shifted_pair
from support.serving import Running, running

from matchrt.runtime.matcher import Matcher
from matchrt.runtime.matches import Matches


@dataclass(frozen=True)
class Pair:
    """Two image files, and what the bundled engine finds between them."""

    paths: tuple[Path, Path]
    expected: Matches

    @property
    def files(self) -> tuple[bytes, bytes]:
        return self.paths[0].read_bytes(), self.paths[1].read_bytes()


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    paths = folder / "a.jpg", folder / "b.jpg"
    for path, image in zip(paths, shifted_pair(120, 160, (16, 8)), strict=True):
        PILImage.fromarray(image).save(path, quality=95)
    with Matcher("loftr-lite") as matcher:
        expected = matcher.match(*paths)
    assert len(expected) > 100
    return Pair(paths, expected)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("server"), "--queue", "4") as service:
        yield service
