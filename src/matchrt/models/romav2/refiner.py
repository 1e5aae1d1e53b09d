"""Convolutional refiners: at one scale, how far off the warp is, how much overlaps, and how precise it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.roma.config import RefinerConfig, Size
from matchrt.models.roma.decoder import Probe, resize
from matchrt.models.roma.feature_map import FeatureMap
from matchrt.models.roma.grid import pixel_grid
from matchrt.models.roma.local_correlation import LocalCorrelation
from matchrt.models.roma.sampling import BilinearSample
from matchrt.models.romav2.directions import both_sides

# Side of the images, in pixels, in which displacements are measured before they are embedded.
DISPLACEMENT_SIDE = 512.0
# A refiner's output of 1 moves the warp by 1 / (4 * side) normalised units, an eighth of a pixel of its scale.
REFINE_UNIT = 4.0
# Added to the diagonal of the precision's factor, so that no scale has a precision of 0.
SMALLEST = 1e-6


@dataclass(frozen=True)
class Estimate:
    """Where the pixels of an image are in the other image, and how sure that is.

    warp: float `[D,2,h,w]`, x and y in the other image; -1 and 1 are its edges, and positions outside are possible.
    logit: float `[D,1,h,w]`, of the overlap.
    precision: float `[D,3,h,w]`: p00, p10 and p11 of the inverse covariance of the position, in 1 / pixel^2 of the
        other image at the pass's size; None before the first refiner.
    """

    warp: Tensor
    logit: Tensor
    precision: Tensor | None = None

    @property
    def overlap(self) -> Tensor:
        """Float `[D,1,h,w]` in 0..1: how surely the other image shows the same place."""
        return torch.sigmoid(self.logit)

    def resized(self, size: Size) -> Estimate:
        """All fields, interpolated linearly to (height, width) `size`."""
        if tuple(self.warp.shape[2:]) == size:
            return self
        joined = resize(torch.cat([self.warp, self.logit], dim=1), size)
        # Apart, so that a graph that returns no precision computes none.
        precision = None if self.precision is None else resize(self.precision, size)
        return Estimate(joined[:, :2], joined[:, 2:], precision)


class RefinerBlock(nn.Module):
    """Depthwise 5x5, norm, ReLU, 1x1; all with biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm: nn.Module = nn.BatchNorm2d(channels)
        self.conv_pointwise: nn.Module = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B,C,h,w] -> [B,C,h,w]`."""
        return self.conv_pointwise(F.relu(self.norm(self.conv_depthwise(x))))


class PrecisionFactor(nn.Module):
    """Three numbers of a pixel to a precision matrix: the square of a triangular factor, which is never singular."""

    def forward(self, raw: Tensor) -> Tensor:
        """`[D,3,h,w]`: the factor's diagonal before its bounds, and what is below -> p00, p10, p11 `[D,3,h,w]`."""
        first, second = (F.softplus(raw[:, i : i + 1]) + SMALLEST for i in (0, 2))
        below = raw[:, 1:2]
        return torch.cat([first * first, first * below, below * below + second * second], dim=1)


class Refiner(nn.Module):
    """One scale's refiner, under the names of the published file."""

    def __init__(self, channels: int, config: RefinerConfig, blocks: int, volume_pixels: int) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        # A convolution in the deployed form, where the scale only samples.
        self.proj: nn.Linear | nn.Conv2d = nn.Linear(channels, config.features)
        self.sample = BilinearSample()
        self.correlation = LocalCorrelation(config.radius, volume_pixels) if config.radius else None
        self.disp_emb = nn.Conv2d(2, config.displacement, 1)
        self.block1 = RefinerBlock(width)
        self.hidden_blocks = nn.ModuleList(RefinerBlock(width) for _ in range(blocks))
        self.warp_head = nn.Conv2d(width, 2, 1)
        self.confidence_head = nn.Conv2d(width, 4, 1)
        self.precision = PrecisionFactor()
        # Both heads as one, in the deployed form.
        self.merged_heads: nn.Conv2d | None = None

    def embedding(self, warp: Tensor, image: Size) -> Tensor:
        """The displacement, embedded: rows `[D,h*w,displacement]` in the warp's type; arguments as in `forward`.

        It is two multiplications for each value and no product of matrices, whose depth would be 2.
        """
        height, width = warp.shape[2:]
        displacement = (warp - pixel_grid(height, width, warp.device)).flatten(2)[..., None]
        across, along = self.disp_emb.weight.flatten(1).unbind(1)
        sides = image[1] / DISPLACEMENT_SIDE, image[0] / DISPLACEMENT_SIDE
        bias = self.disp_emb.bias
        assert bias is not None
        return displacement[:, 0] * (sides[0] * across) + displacement[:, 1] * (sides[1] * along) + bias

    def projected(self, features: Tensor) -> FeatureMap:
        """The features `[2B,C,h,w]` of all images, projected."""
        if isinstance(self.proj, nn.Conv2d):
            return FeatureMap.of(self.proj(features))
        return FeatureMap.of_rows(self.proj(FeatureMap.of(features).rows), (features.shape[2], features.shape[3]))

    def inputs(self, features: Tensor, warp: Tensor, image: Size, symmetric: bool) -> Tensor:
        """The input `[D,width,h,w]` of the convolutions; arguments as in `forward`, warp as in `Estimate`."""
        size = (features.shape[2], features.shape[3])
        first, second = both_sides(self.projected(features), symmetric)
        rows, sampled = first.rows, self.sample(second, warp)
        if rows.shape[2] > self.config.features:
            rows, sampled = rows[..., : self.config.features], sampled[..., : self.config.features]
        parts = [rows, sampled, self.embedding(warp, image).to(rows.dtype)]
        if self.correlation is not None:
            parts.append(self.correlation(first, second, warp).to(rows.dtype))
        return torch.cat(parts, dim=2).transpose(1, 2).reshape(warp.shape[0], -1, *size)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[D,width,h,w]` -> corrections of the warp `[D,2,h,w]` and of overlap and precision `[D,4,h,w]`."""
        if self.merged_heads is not None:
            out = self.merged_heads(x).float()
            return out[:, :2], out[:, 2:]
        return self.warp_head(x).float(), self.confidence_head(x).float()

    def forward(
        self, features: Tensor, start: Estimate, image: Size, symmetric: bool, probe: Probe | None = None
    ) -> Estimate:
        """Corrects an estimate.

        features: `[2B,C,h,w]` of all images of the pass. start: of the features' size. image: (height, width) of the
        images in pixels. symmetric: see `directions`. `proj` may give more channels than configured: padding.
        """
        x = first = self.inputs(features, start.warp, image, symmetric)
        x = block1 = self.block1(x)
        for block in self.hidden_blocks:
            x = block(x)
        moved, sure = self.heads(x)
        if probe is not None:
            stages = {"in": first, "block1": block1, "trunk": x, "dwarp": moved, "dconf_raw": sure}
            for name, value in stages.items():
                probe(f"r{self.config.scale}_{name}", value)
        height, width = features.shape[2:]
        unit = moved.new_tensor([1 / (REFINE_UNIT * width), 1 / (REFINE_UNIT * height)]).reshape(1, 2, 1, 1)
        gained = self.precision(sure[:, 1:])
        precision = gained if start.precision is None else start.precision + gained
        return Estimate(start.warp + moved * unit, start.logit + sure[:, :1], precision)
