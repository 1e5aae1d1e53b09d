"""What distinguishes one RoMa-family network from another. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ScaleRule = Literal["relative", "absolute"]
Size = tuple[int, int]


@dataclass(frozen=True)
class DINOv2Config:
    """A DINOv2 vision transformer (Oquab et al., 2023). grid: side of the grid of the stored position embedding."""

    dim: int = 1024
    depth: int = 24
    heads: int = 16
    patch: int = 14
    grid: int = 37
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")


@dataclass(frozen=True)
class GPConfig:
    """The Gaussian process match encoder: exponential cosine kernel, Fourier basis of `dim` coordinates."""

    dim: int = 512
    temperature: float = 0.2
    noise: float = 0.1


@dataclass(frozen=True)
class MatchDecoderConfig:
    """The transformer decoder on anchors. anchors: side of the grid of anchors that it classifies into."""

    depth: int = 5
    heads: int = 8
    anchors: int = 64


@dataclass(frozen=True)
class RefinerConfig:
    """One convolutional refiner. features: channels after projection; displacement: of its embedding; radius: of the
    local correlation in pixels of its scale, 0 for none."""

    scale: int
    features: int
    displacement: int
    radius: int

    @property
    def channels(self) -> int:
        """Features of both images, displacement embedding, and the window of correlations."""
        window = (2 * self.radius + 1) ** 2 if self.radius else 0
        return 2 * self.features + self.displacement + window


_REFINERS = (
    RefinerConfig(16, 512, 128, 7),
    RefinerConfig(8, 512, 64, 3),
    RefinerConfig(4, 256, 32, 2),
    RefinerConfig(2, 64, 16, 0),
    RefinerConfig(1, 9, 6, 0),
)


@dataclass(frozen=True)
class RoMaConfig:
    """A RoMa-family network (Edstedt et al., "RoMa: Robust Dense Feature Matching", CVPR 2024).

    vgg: channels of the convolutions of the stages at 1/1, 1/2, 1/4, 1/8.
    imagenet: whether images are normalised by ImageNet's mean and deviation; MatchAnything feeds 0..1.
    scale_rule: factor of the displacement embedding. "relative" (MatchAnything): 1 in the coarse pass and
        sqrt(fine area / coarse area) in the upsample pass; "absolute" (RoMa): sqrt(area / 560^2) in both.
    threshold: smallest certainty of a match.
    volume_pixels: largest map of which a local correlation correlates all pairs, and gathers from that; larger ones
        gather features. 8192 pixels are 128 MB in half precision a direction. Results are the same.
    symmetric: match both ways in one batch, as the official code does; False matches image 0 to image 1 only.
    """

    dinov2: DINOv2Config = field(default_factory=DINOv2Config)
    vgg: tuple[tuple[int, ...], ...] = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4)
    gp: GPConfig = field(default_factory=GPConfig)
    match_decoder: MatchDecoderConfig = field(default_factory=MatchDecoderConfig)
    refiners: tuple[RefinerConfig, ...] = _REFINERS
    refiner_blocks: int = 8
    imagenet: bool = True
    scale_rule: ScaleRule = "absolute"
    symmetric: bool = True
    threshold: float = 0.05
    volume_pixels: int = 8192

    def __post_init__(self) -> None:
        if tuple(r.scale for r in self.refiners) != (16, 8, 4, 2, 1):
            raise ValueError("RoMa has refiners at the scales 16, 8, 4, 2, 1")
        if (self.gp.dim + self.refiners[0].features) % self.match_decoder.heads:
            raise ValueError("the match decoder's width is not a multiple of its heads")

    def refiner(self, scale: int) -> RefinerConfig:
        """The refiner at 1/scale."""
        return next(r for r in self.refiners if r.scale == scale)
