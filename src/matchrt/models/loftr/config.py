"""The configuration of LoFTR networks. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from matchrt.models.parts.config import CoarseMatchConfig

LayerKind = Literal["self", "cross"]
AttentionKind = Literal["linear", "full"]


@dataclass(frozen=True)
class TransformerConfig:
    """A stack of LoFTR encoder layers that both images share (LoFTR, CVPR 2021, section 3.3).

    d_model: channels of the tokens.
    n_heads: attention heads, which share the channels equally.
    layers: the kind of each layer, in order: `self` attends to the own image, `cross` to the other one.
    attention: `linear` (Katharopoulos et al., ICML 2020) or `full` (softmax).
    norm_eps: added to the variance in the layer norms.

    Error: ValueError if `d_model` is not a multiple of `n_heads`.
    """

    d_model: int
    n_heads: int
    layers: tuple[LayerKind, ...]
    attention: AttentionKind = "linear"
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")


@dataclass(frozen=True)
class LoFTRConfig:
    """A LoFTR-family network.

    initial_dim: channels of the first convolution.
    block_dims: channels of the backbone's stages. The first stage runs at 1/2 of the input's resolution, and each
        further one halves it, so three stages give coarse features at 1/8 and four at 1/16.
    coarse: the transformer of the coarse features.
    fine: the transformer of the refinement; None for a coarse-only network.
    fine_window: fine pixels along a side of the refinement's windows; odd.
    fixed_position_divisor: False reproduces the published checkpoints, whose position encoding divides `log(10000) /
        d_model // 2` in the wrong order. True is the formula of the paper.
    match: rules of the coarse matching.

    Error: ValueError if the transformers' widths are not those of the backbone's stages.
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
        """Input pixels along a side of a coarse cell."""
        return int(2 ** len(self.block_dims))

    @property
    def fine_stride(self) -> int:
        """Input pixels along a side of a fine-map pixel; the fine map is two stages below the coarse one."""
        return self.coarse_stride // 4

    @property
    def fine_radius(self) -> int:
        """Input pixels from the middle of a fine window to its outermost pixels, which an expectation of 1 means."""
        return self.fine_window // 2 * self.fine_stride

    def __post_init__(self) -> None:
        if self.coarse.d_model != self.block_dims[-1]:
            raise ValueError(f"coarse d_model {self.coarse.d_model} differs from the last stage {self.block_dims[-1]}")
        if self.fine is not None and self.fine.d_model != self.block_dims[-3]:
            raise ValueError(f"fine d_model {self.fine.d_model} differs from its stage's {self.block_dims[-3]}")


# It is here and not with the other variants (`matchrt.families.loftr`), because the room `flax` and the training tools
# need it.
LOFTR_LITE = LoFTRConfig(
    initial_dim=32,
    block_dims=(32, 64, 128),
    coarse=TransformerConfig(d_model=128, n_heads=4, layers=("self", "cross") * 4),
    fine=TransformerConfig(d_model=32, n_heads=2, layers=("self", "cross")),
    fixed_position_divisor=True,
    # On nine pairs, the best similarities of rows and columns were 16 to 50.
    match=CoarseMatchConfig(narrow=True),
)
