"""Chooses the pairs of images that calibrate a build and those that judge it, for all precisions."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from matchrt.bench.drawn import HARD
from matchrt.bench.pairs import JudgedPair, drawn_pairs, user_pairs
from matchrt.errors import MatchRTError
from matchrt.manifest import InputContract

# More pairs than these hardly change ranges, and they take minutes.
CALIBRATING, JUDGING = 16, 8


@dataclass(frozen=True)
class CalibrationPairs:
    """The pairs of a quantized build.

    calibrating: the pairs on which ranges are measured.
    judging: the pairs on which the gate compares matches.
    apart: whether no pair is in both.
    """

    calibrating: tuple[JudgedPair, ...]
    judging: tuple[JudgedPair, ...]
    apart: bool


def require_single_pairs(batch: int) -> None:
    """Raises `calibration-batch` if an engine matches more than one pair in a run. batch: their number."""
    if batch != 1:
        raise MatchRTError(
            "calibration-batch",
            f"This engine matches {batch} pairs in a run, but calibration runs one pair at a time.",
            "Quantize an engine of batch 1.",
        )


def choose_pairs(source: Path | None, contract: InputContract, seed: int) -> CalibrationPairs:
    """Chooses up to 16 pairs that calibrate and up to 8 others that judge.

    If there are fewer pairs, a third of them judges. With one or two pairs, all of them do both.
    source: list of pairs or folder, as `user_pairs` takes it; None for drawn pairs: 8 that calibrate, and 8 under
    harder conditions, which judge as photographs do.
    seed: decides which pairs are taken. Errors: pairs-*, eval-*, calibration-batch.
    """
    require_single_pairs(contract.batch)
    if source is None:
        first = 1000 * seed
        drawn = drawn_pairs(contract, range(first, first + JUDGING))
        judges = drawn_pairs(contract, range(first + 500, first + 500 + JUDGING), HARD)
        return CalibrationPairs(tuple(drawn), tuple(judges), True)
    pairs = user_pairs(source)
    random.Random(seed).shuffle(pairs)
    if len(pairs) < 3:
        return CalibrationPairs(tuple(pairs), tuple(pairs), False)
    judging = min(JUDGING, max(1, len(pairs) // 3))
    return CalibrationPairs(tuple(pairs[judging : judging + CALIBRATING]), tuple(pairs[:judging]), True)
