"""The configuration of XoFTR networks. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from matchrt.models.loftr.config import TransformerConfig
from matchrt.models.parts.config import CoarseMatchConfig


@dataclass(frozen=True)
class XoFTRConfig:
    """A XoFTR network (Tuzcuoglu et al., "XoFTR: Cross-modal Feature Matching Transformer", CVPR Workshops 2024).

    block_dims: channels of the backbone's stages at 1/2, 1/4 and 1/8 of the input's resolution.
    coarse: the transformer of the coarse features, which is LoFTR's.
    middle_heads: attention heads of the windows at 1/4.
    fine_heads: attention heads of the windows at 1/2.
    match: rules of the coarse matching; its threshold is that of a single softmax, and it is not a match's score.
    fine_threshold: the smallest score of a match, 0..1: the confidence of the best pair of pixels of its two windows.

    Error: ValueError if widths do not go together.
    """

    block_dims: tuple[int, int, int] = (128, 196, 256)
    coarse: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(d_model=256, n_heads=8, layers=("self", "cross") * 4)
    )
    middle_heads: int = 7
    fine_heads: int = 8
    match: CoarseMatchConfig = field(default_factory=lambda: CoarseMatchConfig(threshold=0.3, mutual=False))
    fine_threshold: float = 0.1

    @property
    def coarse_stride(self) -> int:
        """Input pixels along a side of a coarse cell."""
        return 8

    def __post_init__(self) -> None:
        fine, middle, coarse = self.block_dims
        if self.coarse.d_model != coarse:
            raise ValueError(f"coarse d_model {self.coarse.d_model} differs from the last stage {coarse}")
        for name, width, heads in (("middle", middle, self.middle_heads), ("fine", fine, self.fine_heads)):
            if width % heads:
                raise ValueError(f"the {name} width {width} is not a multiple of its {heads} heads")
