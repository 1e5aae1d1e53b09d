"""The configuration of EfficientLoFTR networks. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from matchrt.models.parts.config import CoarseMatchConfig

# Of `rescoring`: three fits in turn over windows of 6 cells to each side and one of 2, and a cell each for what is
# refined in it.
SCORE_REACH = 8.0 * (3 * (6 + 1) + (2 + 1))


@dataclass(frozen=True)
class ELoFTRConfig:
    """An EfficientLoFTR network (Wang et al., CVPR 2024); MatchAnything-ELoFTR is the same with other matching rules.

    widths: channels of the backbone's stages at 1/2, 1/2, 1/4 and 1/8 of the input.
    blocks: RepVGG blocks of these stages.
    n_heads: attention heads of the transformer, whose width is `d_model`.
    layer_pairs: how often the transformer repeats a self and a cross layer.
    aggregation: coarse cells along a side of the square that attention sees as one token.
    softmax: False is the authors' optimised configuration, which thresholds the similarity itself.
    trained_side: side in pixels of the images that the network was trained with; None for many sizes, which leaves
        positions as they are.
    built_side: side in pixels of the images that this network is for. Positions are scaled by the ratio of the two (the
        authors' NPE rule).
    fine_regress: channels of the fine features that only the last refinement reads.
    pyramid: channels of the pyramid at 1/4 and 1/2 and of its last map; None for the authors' (those of the next
        coarser stage, twice, and of the stage at 1/2).
    half_resolution: refine on the half-resolution map instead of its enlargement, by `half_resolution`.
    cosine: match the cosines of the coarse features, by `parts.coarse_matching_bounded`.
    rescored: score and place the matches by `rescoring`, after the refinement; `match.threshold` is then for those
        scores.
    match: rules of the coarse matching.

    Error: ValueError if the values do not go together.
    """

    widths: tuple[int, int, int, int] = (64, 64, 128, 256)
    blocks: tuple[int, int, int, int] = (1, 2, 4, 14)
    n_heads: int = 8
    layer_pairs: int = 4
    aggregation: int = 4
    softmax: bool = True
    trained_side: int | None = 832
    built_side: int = 832
    fine_regress: int = 8
    pyramid: tuple[int, int, int] | None = None
    half_resolution: bool = False
    cosine: bool = False
    rescored: bool = False
    match: CoarseMatchConfig = field(default_factory=CoarseMatchConfig)

    @property
    def d_model(self) -> int:
        """Channels of the coarse features."""
        return self.widths[-1]

    @property
    def pyramid_widths(self) -> tuple[int, int, int]:
        """Channels of the pyramid at 1/4 and 1/2 and of its last map."""
        return (self.widths[3], self.widths[2], self.widths[1]) if self.pyramid is None else self.pyramid

    @property
    def position_scale(self) -> float:
        """By how much positions are multiplied."""
        return 1.0 if self.trained_side is None else self.trained_side / self.built_side

    @property
    def coarse_stride(self) -> int:
        """Input pixels along a side of a coarse cell."""
        return 8

    @property
    def score_reach(self) -> float:
        """Within how many pixels of image 0 a match has a part in the score and the place of another."""
        return SCORE_REACH if self.rescored else 0.0

    def __post_init__(self) -> None:
        if self.d_model % (4 * self.n_heads):
            raise ValueError(f"d_model {self.d_model} is not a multiple of 4 times n_heads {self.n_heads}")
        fine = self.pyramid_widths[2]
        if not 0 < self.fine_regress < fine:
            raise ValueError(f"fine_regress {self.fine_regress} leaves none of {fine} fine channels to match")
        if self.match.border < 1:
            raise ValueError("border 0: fine windows would reach over the edge of the image")


# It is here and not with the other variants (`matchrt.families.eloftr`), because the training tools need it.
# Widths and depth were chosen by their time on two threads of a CPU: docs/models/eloftr-lite.md.
ELOFTR_LITE = ELoFTRConfig(
    widths=(16, 16, 48, 112),
    blocks=(1, 1, 3, 5),
    n_heads=4,
    layer_pairs=3,
    trained_side=None,
    pyramid=(48, 32, 32),
    half_resolution=True,
    cosine=True,
    rescored=True,
    match=CoarseMatchConfig(threshold=0.1),
)
