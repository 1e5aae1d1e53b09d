"""Settings of the parts that networks share. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CoarseMatchConfig:
    """Dual-softmax matching of coarse cells (LoFTR, section 3.4).

    threshold: smallest confidence of a match; temperature: divisor of the similarity;
    border: cells removed along each side of the valid area; mutual: keep only mutual nearest cells.
    """

    threshold: float = 0.2
    temperature: float = 0.1
    border: int = 2
    mutual: bool = True
