"""The options of calibration in a build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CalibrationOptions:
    """How the ranges of activations are measured.

    source: a list of pairs, an evaluation folder, or a folder of images, each of which is paired with the next one;
        None for drawn scenes.
    method: `max`, `percentile` (99.999 % of all values are inside) or `entropy`; compared in docs/quantization.md.
    keep: patterns of modules that stay in floating point.
    seed: decides which of the pairs are taken.
    only_faster: quantize only products that 8 bits make faster on this machine's GPU, which times them.
    """

    source: Path | None = None
    method: str = "percentile"
    keep: tuple[str, ...] = ()
    seed: int = 0
    only_faster: bool = False
