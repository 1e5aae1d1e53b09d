"""How activations get their ranges, as a build is asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CalibrationOptions:
    """How activations get their ranges.

    source: a list of pairs, an evaluation folder, or a folder of images that follow each other; None: drawn scenes.
    method: max, percentile (of all values, 99.999 % are inside) or entropy; measured in docs/quantization.md.
    keep: patterns of modules that stay in floating point. seed: which pairs are taken.
    """

    source: Path | None = None
    method: str = "percentile"
    keep: tuple[str, ...] = ()
    seed: int = 0
