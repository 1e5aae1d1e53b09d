"""The configuration of RoMa networks. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ScaleRule = Literal["relative", "absolute"]
Size = tuple[int, int]


@dataclass(frozen=True)
class DINOv2Config:
    """A DINOv2 vision transformer (Oquab et al., 2023).

    dim: channels of the tokens.
    depth: number of blocks.
    heads: attention heads, which share the channels equally.
    patch: pixels along a side of a patch.
    grid: patches along a side of the grid of the stored position embedding.
    mlp_ratio: hidden channels of the MLP, in multiples of `dim`.

    Error: ValueError if `dim` is not a multiple of `heads`.
    """

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
    """The Gaussian process match encoder (DKM, CVPR 2023): exponential cosine kernel, Fourier basis of coordinates.

    dim: channels of the Fourier basis.
    temperature: divisor in the kernel `exp((cos - 1) / temperature)`.
    noise: added to the diagonal of the kernel matrix.
    """

    dim: int = 512
    temperature: float = 0.2
    noise: float = 0.1


@dataclass(frozen=True)
class MatchDecoderConfig:
    """The transformer decoder that classifies each patch into anchors (RoMa, section 3.3).

    depth: number of blocks.
    heads: attention heads.
    anchors: anchors along a side of their grid over the other image.
    """

    depth: int = 5
    heads: int = 8
    anchors: int = 64


@dataclass(frozen=True)
class RefinerConfig:
    """One convolutional refiner (RoMa, section 3.2).

    scale: it works at 1/scale of the image's resolution.
    features: channels of each image's features after projection.
    displacement: channels of the displacement's embedding.
    radius: of the local correlation, in pixels of its scale; 0 for none.
    """

    scale: int
    features: int
    displacement: int
    radius: int

    @property
    def channels(self) -> int:
        """Channels of its input: features of both images, displacement embedding, window of correlations."""
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

    dinov2: the transformer of the coarse features.
    vgg: channels of the convolutions of the stages at 1/1, 1/2, 1/4, 1/8.
    gp: the match encoder.
    match_decoder: the coarse match decoder.
    refiners: one for each of the scales 16, 8, 4, 2, 1.
    refiner_blocks: hidden blocks of each refiner.
    imagenet: whether images are normalised by ImageNet's mean and deviation; MatchAnything uses 0..1.
    scale_rule: factor of the displacement embedding. "relative" (MatchAnything): 1 in the coarse pass and sqrt(fine
        area / coarse area) in the upsample pass. "absolute" (RoMa): sqrt(area / 560^2) in both.
    symmetric: match both ways in one batch, as the official code does; False matches image 0 to image 1 only.
    threshold: the smallest certainty of a match, 0..1.
    black: pixels of the input whose red, green and blue are all below it have certainty 0; GIM marks padding so. 0 for
        none.
    volume_pixels: pixels of the largest map for which a local correlation correlates all pairs, and gathers from the
        result. For larger maps it gathers features. 8192 pixels are 128 MB in half precision for each direction. The
        results are the same.

    Error: ValueError if the values do not go together.
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
    black: float = 0.0
    volume_pixels: int = 8192

    def __post_init__(self) -> None:
        if tuple(r.scale for r in self.refiners) != (16, 8, 4, 2, 1):
            raise ValueError("RoMa has refiners at the scales 16, 8, 4, 2, 1")
        if (self.gp.dim + self.refiners[0].features) % self.match_decoder.heads:
            raise ValueError("the match decoder's width is not a multiple of its heads")

    def refiner(self, scale: int) -> RefinerConfig:
        """The refiner at 1/scale. Raises StopIteration if there is none."""
        return next(r for r in self.refiners if r.scale == scale)
