"""Projections of the encoders' features to the width of the refiners."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.roma.feature_map import FeatureMap


class Projection(nn.Sequential):
    """A 1x1 convolution and a norm; names are those of the published checkpoints."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__(nn.Conv2d(channels, features, 1), nn.BatchNorm2d(features))

    def forward(self, features: FeatureMap) -> FeatureMap:
        """Projects each pixel."""
        convolution, norm = self
        return FeatureMap.of(norm(convolution(features.planes())))


class RowProjection(nn.Linear):
    """The same as one product that writes rows.

    conv: the 1x1 convolution, with the norm folded into it.
    multiple: the rows are padded with zeros to a multiple of that many channels. 8 values of 16 bits are what GPUs read
        and write at once; the 9 channels at scale 1 would make every row begin at an odd place.
    """

    def __init__(self, conv: nn.Conv2d, multiple: int = 8) -> None:
        extra = -conv.out_channels % multiple
        super().__init__(conv.in_channels, conv.out_channels + extra)
        assert conv.bias is not None
        with torch.no_grad():
            self.weight.copy_(F.pad(conv.weight.flatten(1), (0, 0, 0, extra)))
            self.bias.copy_(F.pad(conv.bias, (0, extra)))

    def forward(self, features: FeatureMap) -> FeatureMap:  # type: ignore[override]
        """Projects each pixel."""
        rows: Tensor = super().forward(features.rows)
        return FeatureMap.of_rows(rows, features.size)
