"""The pairs of images on which engines are judged: the user's own, or drawn ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matchrt.bench.drawn import PLAIN, Conditions, drawn_pair
from matchrt.bench.folder import EvalFolder, HomographyPair, ImagePair, PlainPair, read_folder
from matchrt.manifest import InputContract
from matchrt.runtime.pairs import read_pairs
from matchrt.runtime.self_test.pair import self_test_size

_EVALUATION = ("homography", "pose", "stereo", "multimodal", "nogt")


@dataclass(frozen=True, eq=False)
class JudgedPair:
    """Two images and what is known about them.

    image0, image1: a file, or uint8 [H, W, C].
    truth: the kind of pair with its truth; `truth.id` names the pair in reports.
    """

    image0: Any
    image1: Any
    truth: ImagePair


def drawn_pairs(contract: InputContract, seeds: Sequence[int], conditions: Conditions = PLAIN) -> list[JudgedPair]:
    """Draws a pair for each seed, in the size of the engine's images or of frame 0.

    For a dynamic engine the sides have at most 640 pixels.
    """
    height, width = _size(contract)
    found = []
    for seed in seeds:
        pair = drawn_pair(height, width, seed, conditions)
        size = (height, width)
        name = Path(f"drawn-{seed}")
        truth = HomographyPair(f"drawn/{seed}", "drawn", name, name, pair.homography, size, size)
        found.append(JudgedPair(pair.image0, pair.image1, truth))
    return found


def _size(contract: InputContract) -> tuple[int, int]:
    if contract.frames is not None:
        return self_test_size(contract)
    if contract.height is not None and contract.width is not None:
        return contract.height, contract.width
    assert contract.profile is not None
    height, width = contract.profile.optimum
    return min(height, 640), min(width, 640)


def user_pairs(source: Path) -> list[JudgedPair]:
    """The user's pairs.

    source: a list of pairs, an evaluation folder (whose truth is kept), or a folder of images, each of which is paired
    with the next one. Errors: pairs-*, eval-*.
    """
    if source.is_dir() and any((source / part / "pairs.json").is_file() for part in _EVALUATION):
        return folder_pairs(read_folder(source))
    pairs = read_pairs(source, window=1) if source.is_dir() else read_pairs(source)
    names = (f"{first.name} {second.name}" for first, second in pairs)
    return [JudgedPair(a, b, PlainPair(n, "pairs", a, b, False)) for n, (a, b) in zip(names, pairs, strict=True)]


def folder_pairs(folder: EvalFolder) -> list[JudgedPair]:
    """All pairs of an evaluation folder."""
    found: tuple[ImagePair, ...] = (*folder.homography, *folder.pose, *folder.stereo, *folder.plain)
    return [JudgedPair(pair.image0, pair.image1, pair) for pair in found]
