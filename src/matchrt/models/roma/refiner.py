"""Convolutional refiners. At one scale, each says how far off the flow is and how certain it is (RoMa, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.roma.config import RefinerConfig
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

    def inputs(self, features0: Tensor, features1: Tensor, flow: Tensor, scale_factor: float) -> Tensor:
        """The input `[B,channels,h,w]` of the convolutions; arguments as in `forward`."""
        height, width = flow.shape[2:]
        warped = self.sample(features1, flow)
        displacement = flow - pixel_grid(height, width, flow.device)
        embedded = self.disp_emb(DISPLACEMENT_GAIN * scale_factor * displacement)
        parts = [features0, warped, embedded.to(features0.dtype)]
        if self.correlation is not None:
            window = self.correlation(features0, features1, flow)
            parts.append(F.pad(window, (0, 0, 0, 0, 0, self.padding)).to(features0.dtype))
        return torch.cat(parts, dim=1)

    def forward(self, features0: Tensor, features1: Tensor, flow: Tensor, scale_factor: float) -> tuple[Tensor, Tensor]:
        """features0, features1 `[B,C,h,w]`, flow `[B,2,h,w]` normalised -> corrections `[B,2,h,w]` and `[B,1,h,w]`.

        `RoMaDecoder.REFINE_UNIT` gives the unit of the flow's correction.
        """
        x = self.inputs(features0, features1, flow, scale_factor)
        out = self.out_conv(self.hidden_blocks(self.block1(x))).float()
        return out[:, :2], out[:, 2:]
