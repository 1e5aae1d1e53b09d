"""Convolutional refiners. At one scale, each says how far off the flow is and how certain it is (RoMa, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.roma.config import RefinerConfig
from matchrt.models.roma.feature_map import FeatureMap
from matchrt.models.roma.grid import pixel_grid
from matchrt.models.roma.local_correlation import LocalCorrelation
from matchrt.models.roma.sampling import BilinearSample

# Factor of the displacement that the official code feeds to its embedding: 40 / 32 patches.
DISPLACEMENT_GAIN = 1.25


def refiner_block(channels: int) -> nn.Sequential:
    """Depthwise 5x5, norm, ReLU, 1x1; all with biases."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 5, padding=2, groups=channels),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1),
    )


class ConvRefiner(nn.Module):
    """Features of both images, the warped one sampled at the flow, to corrections of flow and certainty."""

    def __init__(self, config: RefinerConfig, blocks: int, volume_pixels: int) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.block1 = refiner_block(channels)
        self.hidden_blocks = nn.Sequential(*(refiner_block(channels) for _ in range(blocks)))
        self.out_conv = nn.Conv2d(channels, 3, 1)
        self.disp_emb = nn.Conv2d(2, config.displacement, 1)
        self.sample = BilinearSample()
        self.correlation = LocalCorrelation(config.radius, volume_pixels) if config.radius else None
        # Zero channels after the correlations; see `deployed`.
        self.padding = 0

    def embedding(self, flow: Tensor, scale_factor: float) -> Tensor:
        """The displacement `flow - pixel_grid`, embedded: rows `[B,h*w,displacement]` in the flow's type.

        It is two multiplications for each value and no product of matrices, whose depth would be 2.
        """
        height, width = flow.shape[2:]
        displacement = (flow - pixel_grid(height, width, flow.device)).flatten(2)[..., None]
        weight, bias = self.disp_emb.weight, self.disp_emb.bias
        assert bias is not None
        across, along = (DISPLACEMENT_GAIN * scale_factor * weight.flatten(1)).unbind(1)
        return displacement[:, 0] * across + displacement[:, 1] * along + bias

    def inputs(self, features0: FeatureMap, features1: FeatureMap, flow: Tensor, scale_factor: float) -> Tensor:
        """The input `[B,channels,h,w]` of the convolutions; arguments as in `forward`."""
        batch, _, height, width = flow.shape
        rows, warped = features0.rows, self.sample(features1, flow)
        if rows.shape[2] > self.config.features:
            rows, warped = rows[..., : self.config.features], warped[..., : self.config.features]
        parts = [rows, warped, self.embedding(flow, scale_factor).to(rows.dtype)]
        if self.correlation is not None:
            window = self.correlation(features0, features1, flow)
            parts.append(F.pad(window, (0, self.padding)).to(rows.dtype))
        return torch.cat(parts, dim=2).transpose(1, 2).reshape(batch, -1, height, width)

    def forward(
        self, features0: FeatureMap, features1: FeatureMap, flow: Tensor, scale_factor: float
    ) -> tuple[Tensor, Tensor]:
        """Maps of size h x w, flow `[B,2,h,w]` normalised -> corrections `[B,2,h,w]` and `[B,1,h,w]`.

        features0, features1: projected features; channels beyond the configured ones are padding.
        `RoMaDecoder.REFINE_UNIT` gives the unit of the flow's correction.
        """
        x = self.inputs(features0, features1, flow, scale_factor)
        out = self.out_conv(self.hidden_blocks(self.block1(x))).float()
        return out[:, :2], out[:, 2:]
