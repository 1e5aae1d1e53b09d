"""XoFTR's backbone: LoFTR's convolutions without the feature pyramid, and the normalisation of its images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.loftr.resnet_fpn import ResNetFPN

# Keeps an image of one grey, whose deviation is zero, at zero.
_SMALLEST_DEVIATION = 1e-6

Taps = tuple[Tensor, Tensor, Tensor]


class XoFTRBackbone(ResNetFPN):
    """The stages of LoFTR's ResNet. The 1/8 features are projected; those at 1/4 and 1/2 are the stages' own."""

    def __init__(self, block_dims: tuple[int, ...]) -> None:
        super().__init__(block_dims[0], block_dims, fine=False)

    def forward(self, image: Tensor) -> Taps:  # type: ignore[override]
        """`[B,1,H,W]`, normalised, sides multiples of 8 -> features `[B,C,h,w]` at 1/8, 1/4 and 1/2."""
        half = self.get_submodule("layer1")(F.relu(self.bn1(self.conv1(image))))
        quarter = self.get_submodule("layer2")(half)
        coarse = self.get_submodule("layer3_outconv")(self.get_submodule("layer3")(quarter))
        return coarse, quarter, half


class ImageNormalisation(nn.Module):
    """Takes its own mean from each image, and divides it by its own standard deviation. It has no weights.

    The authors' test code pads no image, so that mean and deviation are the image's own. Here padding must not change
    them either: they are taken over the valid part. The padding becomes zero, which is the mean grey and what
    convolutions see beyond the edge of an unpadded image.
    """

    def forward(self, image: Tensor, size: Tensor | None) -> Tensor:
        """`[B,1,H,W]` -> the same shape. size: int `[B,2]`, valid height and width in pixels; None for no padding."""
        height, width = image.shape[2:]
        if size is None:
            return _scaled(image, image.mean(dim=(2, 3), keepdim=True), None, height * width)
        inside = _valid(height, width, size)
        count = size.to(torch.float32).prod(dim=1).reshape(-1, 1, 1, 1)
        return _scaled(image, (image * inside).sum(dim=(2, 3), keepdim=True) / count, inside, count)


def _scaled(image: Tensor, mean: Tensor, inside: Tensor | None, count: Tensor | int) -> Tensor:
    centred = image - mean if inside is None else (image - mean) * inside
    # The deviation of a sample, as torch computes it: over one less than the number of pixels.
    variance = (centred * centred).sum(dim=(2, 3), keepdim=True) / (count - 1)
    return centred / (variance.sqrt() + _SMALLEST_DEVIATION)


def _valid(height: int, width: int, size: Tensor) -> Tensor:
    """float `[B,1,H,W]`: 1 for the image, 0 for padding."""
    limit = size.to(torch.float32)
    rows = torch.arange(height, device=size.device, dtype=torch.float32)[None] < limit[:, :1]
    columns = torch.arange(width, device=size.device, dtype=torch.float32)[None] < limit[:, 1:]
    return rows.to(torch.float32)[:, None, :, None] * columns.to(torch.float32)[:, None, None, :]


def run_backbone(backbone: XoFTRBackbone, image0: Tensor, image1: Tensor) -> tuple[Taps, Taps]:
    """Features of both normalised images. Images of equal size are one batch, which GPUs compute faster."""
    if image0.shape[2:] != image1.shape[2:]:
        return backbone(image0), backbone(image1)
    halves = [features.chunk(2) for features in backbone(torch.cat([image0, image1]))]
    (coarse0, coarse1), (quarter0, quarter1), (half0, half1) = halves
    return (coarse0, quarter0, half0), (coarse1, quarter1, half1)
