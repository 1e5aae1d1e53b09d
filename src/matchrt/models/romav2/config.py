"""The configuration of RoMa v2. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from matchrt.models.roma.config import RefinerConfig


@dataclass(frozen=True)
class DINOv3Config:
    """A DINOv3 vision transformer, as far as RoMa v2 runs it.

    dim: channels of the tokens.
    depth: blocks that are run. ViT-L has 24; RoMa v2 reads nothing behind the eighteenth.
    heads: attention heads, which share the channels equally.
    patch: pixels along a side of a patch.
    storage: storage tokens, which stand beside the class token and belong to no patch.
    taps: the blocks, counted from 0, whose tokens are the features.
    mlp_ratio: hidden channels of the MLP, in multiples of `dim`.
    """

    dim: int = 1024
    depth: int = 18
    heads: int = 16
    patch: int = 16
    storage: int = 4
    taps: tuple[int, int] = (11, 17)
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        if self.taps[-1] != self.depth - 1:
            raise ValueError(f"the last of the {self.depth} blocks is not the last one read, {self.taps[-1]}")


@dataclass(frozen=True)
class MultiViewConfig:
    """The transformer that sees the patches of both images.

    dim: channels of the tokens.
    depth: blocks. Those with even numbers attend to both images, the others to each image alone.
    heads: attention heads, which share the channels equally.
    mlp_ratio: hidden channels of the MLP, in multiples of `dim`.
    """

    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4


@dataclass(frozen=True)
class HeadConfig:
    """The head that makes the first warp from tokens: a dense prediction transformer (Ranftl et al., ICCV 2021).

    levels: channels of the four levels, at 1/4, 1/8, 1/16 and 1/32 of the image.
    width: channels in which the levels are fused.
    last: channels of the two convolutions behind the fusion.
    """

    levels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    width: int = 256
    last: tuple[int, int] = (128, 32)


# Scale, channels of an image's features, of the displacement's embedding, radius of the local correlation.
_REFINERS = (RefinerConfig(4, 192, 79, 3), RefinerConfig(2, 48, 23, 1), RefinerConfig(1, 12, 8, 0))


@dataclass(frozen=True)
class RoMaV2Config:
    """RoMa v2 (Edstedt et al., "RoMa v2: Harder Better Faster Denser Feature Matching", arXiv 2511.15706).

    dinov3: the transformer of each image alone.
    multi_view: the transformer of both images.
    head: from tokens to the first warp.
    frequencies: directions of the Fourier basis of positions; a position has twice as many channels.
    vgg: channels of the convolutions of the stages at 1/1, 1/2 and 1/4.
    refiners: one for each of the scales 4, 2, 1.
    refiner_blocks: blocks of each refiner behind its first.
    symmetric: match both ways; False matches image 0 to image 1 only, with the same result for that direction.
    threshold: the smallest overlap of a match, 0..1.
    volume_pixels: see `RoMaConfig`.

    Error: ValueError if the values do not go together.
    """

    dinov3: DINOv3Config = field(default_factory=DINOv3Config)
    multi_view: MultiViewConfig = field(default_factory=MultiViewConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    frequencies: int = 512
    vgg: tuple[tuple[int, ...], ...] = ((64,) * 2, (128,) * 2, (256,) * 4)
    refiners: tuple[RefinerConfig, ...] = _REFINERS
    refiner_blocks: int = 8
    symmetric: bool = False
    threshold: float = 0.05
    volume_pixels: int = 8192

    def __post_init__(self) -> None:
        if tuple(r.scale for r in self.refiners) != (4, 2, 1):
            raise ValueError("RoMa v2 has refiners at the scales 4, 2, 1")
        if 2 * self.frequencies != self.dinov3.dim:
            raise ValueError("embedded positions are added to features, so both have the same channels")
