"""ResNet backbone with a feature pyramid (LoFTR, CVPR 2021, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.parts.halves import halves


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)


def _conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride, 0, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, `[B,Cin,H,W] -> [B,Cout,H/stride,W/stride]`."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, out_channels, stride)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1:
            self.downsample = nn.Sequential(_conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """`[B,Cin,H,W] -> [B,Cout,H/stride,W/stride]`."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(self.downsample(x) + y)


class ResNetFPN(nn.Module):
    """Grey image to coarse features and, with `fine`, to features four times as dense along each side.

    block_dims: channels of the stages `layer1..N`; `layer1` runs at half the input's resolution. Three stages are
        LoFTR's 8_2 pyramid (coarse 1/8, fine 1/2), four its 16_4 pyramid (coarse 1/16, fine 1/4).
    """

    def __init__(self, initial_dim: int, block_dims: tuple[int, ...], fine: bool) -> None:
        super().__init__()
        if initial_dim != block_dims[0]:
            raise ValueError(f"initial_dim {initial_dim} must equal the first stage's {block_dims[0]} channels")
        self.block_dims = block_dims
        self.n_stages = len(block_dims)
        self.conv1 = nn.Conv2d(1, initial_dim, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(initial_dim)
        in_channels = initial_dim
        for stage, channels in enumerate(block_dims, start=1):
            stride = 1 if stage == 1 else 2
            blocks = nn.Sequential(BasicBlock(in_channels, channels, stride), BasicBlock(channels, channels))
            self.add_module(f"layer{stage}", blocks)
            in_channels = channels
        self.add_module(f"layer{self.n_stages}_outconv", _conv1x1(block_dims[-1], block_dims[-1]))
        # The fine map is two stages below the coarse one.
        self.pyramid_stages = (self.n_stages - 1, self.n_stages - 2) if fine else ()
        for stage in self.pyramid_stages:
            here, above = block_dims[stage - 1], block_dims[stage]
            self.add_module(f"layer{stage}_outconv", _conv1x1(here, above))
            merge = nn.Sequential(
                _conv3x3(above, above), nn.BatchNorm2d(above), nn.LeakyReLU(0.01), _conv3x3(above, here)
            )
            self.add_module(f"layer{stage}_outconv2", merge)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """`image [B,1,H,W]` in 0..1, sides multiples of the coarse stride -> coarse `[B,C,H/s,W/s]`, fine or None."""
        x = F.relu(self.bn1(self.conv1(image)))
        features: list[Tensor] = []
        for stage in range(1, self.n_stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
            features.append(x)
        coarse = self.get_submodule(f"layer{self.n_stages}_outconv")(x)
        if not self.pyramid_stages:
            return coarse, None
        fine = coarse
        for stage in self.pyramid_stages:
            # align_corners as the official code has it: it moves the context by up to half a cell, and the
            # published weights were trained with that.
            up = F.interpolate(fine, scale_factor=2.0, mode="bilinear", align_corners=True)
            lateral = self.get_submodule(f"layer{stage}_outconv")(features[stage - 1])
            fine = self.get_submodule(f"layer{stage}_outconv2")(lateral + up)
        return coarse, fine


def run_backbone(backbone: ResNetFPN, image0: Tensor, image1: Tensor) -> tuple[tuple[Tensor, Tensor | None], ...]:
    """Features of both images `[B,1,H,W]`. Images of equal size are one batch, which GPUs compute faster."""
    if image0.shape[2:] != image1.shape[2:]:
        return backbone(image0), backbone(image1)
    coarse, fine = backbone(torch.cat([image0, image1]))
    coarse0, coarse1 = halves(coarse)
    if fine is None:
        return (coarse0, None), (coarse1, None)
    fine0, fine1 = halves(fine)
    return (coarse0, fine0), (coarse1, fine1)
