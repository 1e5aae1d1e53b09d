"""Which pairs of images a build uses: those that calibrate it and those that judge it. Every precision asks here."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from matchrt.bench.drawn import HARD
from matchrt.bench.pairs import JudgedPair, drawn_pairs, user_pairs
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, InputContract

# More pairs change ranges little and take minutes.
CALIBRATING, JUDGING = 16, 8


def fp16_pairs(manifest: EngineManifest) -> list[JudgedPair]:
    """What judges fp16: textures, which even networks with random weights match. Needs torch."""
    from matchrt.building.textures import texture_pairs

    return texture_pairs(manifest.input, manifest.matching.coarse_stride)


@dataclass(frozen=True)
class CalibrationPairs:
    """calibrating: what ranges are measured on; judging: what the gate looks at; apart: whether no pair is in both."""

    calibrating: tuple[JudgedPair, ...]
    judging: tuple[JudgedPair, ...]
    apart: bool


def choose_pairs(source: Path | None, contract: InputContract, seed: int) -> CalibrationPairs:
    """16 pairs that calibrate and 8 others that judge; of fewer, a third judges, and one pair does both.

    Without a source, drawn ones: 8, and 8 under harder conditions, which judge as photographs do.
    Errors: pairs-*, eval-*, calibration-batch.
    """
    if contract.batch != 1:
        raise MatchRTError(
            "calibration-batch",
            f"This engine matches {contract.batch} pairs a run; calibration runs pair after pair.",
            "Quantise an engine of batch 1.",
        )
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
