"""Network configurations: what distinguishes one LoFTR-family model from another. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

LayerKind = Literal["self", "cross"]
AttentionKind = Literal["linear", "full"]


@dataclass(frozen=True)
class TransformerConfig:
    """A stack of LoFTR encoder layers shared by both images (LoFTR, CVPR 2021, section 3.3)."""

    d_model: int
    n_heads: int
    layers: tuple[LayerKind, ...]
    attention: AttentionKind = "linear"
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")


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


@dataclass(frozen=True)
class LoFTRConfig:
    """A LoFTR-family network.

    block_dims: channels of the backbone stages; the first runs at 1/2, each further one halves the resolution, so
        three stages give coarse features at 1/8 and four at 1/16.
    fine: transformer of the 5x5 refinement, or None for a coarse-only network.
    fixed_position_divisor: False reproduces the published checkpoints, whose position encoding divides
        `log(10000) / d_model // 2` in the wrong order; True is the formula of the paper.
    """

    initial_dim: int = 128
    block_dims: tuple[int, ...] = (128, 196, 256)
    coarse: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(d_model=256, n_heads=8, layers=("self", "cross") * 4)
    )
    fine: TransformerConfig | None = field(
        default_factory=lambda: TransformerConfig(d_model=128, n_heads=8, layers=("self", "cross"))
    )
    fine_window: int = 5
    fixed_position_divisor: bool = False
    match: CoarseMatchConfig = field(default_factory=CoarseMatchConfig)

    @property
    def coarse_stride(self) -> int:
        """Input pixels per coarse cell."""
        return int(2 ** len(self.block_dims))

    @property
    def fine_stride(self) -> int:
        """Input pixels per fine-map pixel: the fine map lies two stages below the coarse one."""
        return self.coarse_stride // 4

    @property
    def fine_radius(self) -> int:
        """Input pixels from the middle of a fine window to its outermost pixels: what an expectation of 1 means."""
        return self.fine_window // 2 * self.fine_stride

    def __post_init__(self) -> None:
        if self.coarse.d_model != self.block_dims[-1]:
            raise ValueError(f"coarse d_model {self.coarse.d_model} differs from the last stage {self.block_dims[-1]}")
        if self.fine is not None and self.fine.d_model != self.block_dims[-3]:
            raise ValueError(f"fine d_model {self.fine.d_model} differs from its stage's {self.block_dims[-3]}")


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


LOFTR_OUTDOOR = LoFTRConfig()
LOFTR_INDOOR = LOFTR_OUTDOOR
LOFTR_INDOOR_NEW = LoFTRConfig(fixed_position_divisor=True)
LOFTR_LITE = LoFTRConfig(
    initial_dim=32,
    block_dims=(32, 64, 128),
    coarse=TransformerConfig(d_model=128, n_heads=4, layers=("self", "cross") * 4),
    fine=TransformerConfig(d_model=32, n_heads=2, layers=("self", "cross")),
    fixed_position_divisor=True,
)
COARSE_LOFTR = LoFTRConfig(
    initial_dim=8,
    block_dims=(8, 16, 32, 32),
    coarse=TransformerConfig(d_model=32, n_heads=1, layers=("self", "cross") * 2, norm_eps=1e-7),
    fine=None,
    match=CoarseMatchConfig(threshold=0.1, border=0),
)
# The similarity above which the authors' optimised configuration takes a match.
ELOFTR_OPT_SIMILARITY = 25.0
ELOFTR = ELoFTRConfig()
ELOFTR_OPT = ELoFTRConfig(softmax=False, match=CoarseMatchConfig(threshold=0.5))
MATCHANYTHING_ELOFTR = ELoFTRConfig(match=CoarseMatchConfig(threshold=0.1, mutual=False))
