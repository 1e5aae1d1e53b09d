"""What distinguishes one EfficientLoFTR network from another. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from matchrt.models.parts.config import CoarseMatchConfig


@dataclass(frozen=True)
class ELoFTRConfig:
    """An EfficientLoFTR network (Wang et al., CVPR 2024); MatchAnything-ELoFTR is the same with other matching rules.

    widths, blocks: channels and RepVGG blocks of the backbone's stages at 1/2, 1/2, 1/4 and 1/8 of the input.
    d_model, n_heads: of the transformer, which is `layer_pairs` times a self and a cross layer.
    aggregation: coarse cells a side that attention sees as one.
    softmax: False is the authors' optimised configuration, which thresholds the similarity itself.
    trained_side, built_side: sides in pixels of training's and of this network's images; positions are scaled by their
        ratio (the authors' NPE rule).
    fine_regress: channels of the fine features that only the last refinement reads.
    """

    widths: tuple[int, int, int, int] = (64, 64, 128, 256)
    blocks: tuple[int, int, int, int] = (1, 2, 4, 14)
    n_heads: int = 8
    layer_pairs: int = 4
    aggregation: int = 4
    softmax: bool = True
    trained_side: int = 832
    built_side: int = 832
    fine_regress: int = 8
    match: CoarseMatchConfig = field(default_factory=CoarseMatchConfig)

    @property
    def d_model(self) -> int:
        """Channels of the coarse features."""
        return self.widths[-1]

    @property
    def coarse_stride(self) -> int:
        """Input pixels per coarse cell."""
        return 8

    def __post_init__(self) -> None:
        if self.d_model % (4 * self.n_heads):
            raise ValueError(f"d_model {self.d_model} is not a multiple of 4 times n_heads {self.n_heads}")
        if not 0 < self.fine_regress < self.widths[1]:
            raise ValueError(f"fine_regress {self.fine_regress} leaves none of {self.widths[1]} fine channels to match")
        if self.match.border < 1:
            raise ValueError("border 0: fine windows would reach over the edge of the image")
