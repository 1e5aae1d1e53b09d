"""Settings of the parts that networks share. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CoarseMatchConfig:
    """Dual-softmax matching of coarse cells (LoFTR, section 3.4).

    threshold: the smallest confidence of a match, 0..1.
    temperature: divisor of the similarity.
    border: cells along each side of the valid area that match nothing.
    mutual: keep only mutually nearest cells.
    narrow: whether these weights' best similarities of all rows and columns lie within 100 of the pair's largest, which
        was measured. Dynamic graphs, for CPUs, then compute the similarity once (`coarse_matching_once`); with other
        weights, rows far below the largest would lose their matches.
    """

    threshold: float = 0.2
    temperature: float = 0.1
    border: int = 2
    mutual: bool = True
    narrow: bool = False
