"""Reads feature maps at flow positions with row gathers, channels last.

A GridSample in half precision would round its grid to half a pixel at width 864, and one GridSample for each
displacement of a correlation window is slow and large. Here positions stay float32 and become integer indices and
bilinear weights. The features are gathered as contiguous rows of C channels in their own type.

The modules that compute positions are apart, so that the names of the exported graph's nodes say which of them must
stay float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from matchrt.models.parts.stored import stored, stored_integers
from matchrt.models.roma.feature_map import FeatureMap
from matchrt.models.roma.grid import to_pixels

# From so many channels on, a kernel that writes positions costs less than computing them for every channel.
STORED_CHANNELS = 32
# float32 holds every integer up to this one.
EXACT = 1 << 24


@dataclass(frozen=True)
class Corner:
    """Where each query is between pixels: the pixel up left of it, and the distance from that pixel.

    x: int32 `[B,N]`, the pixel's column, possibly outside of the map.
    y: int32 `[B,N]`, its row, likewise.
    right: float32 `[B,N]` in 0..1, how far the query is to the right of the pixel.
    down: float32 `[B,N]` in 0..1, how far it is below.
    """

    x: Tensor
    y: Tensor
    right: Tensor
    down: Tensor


def corner(flow: Tensor, height: int, width: int, margin: int) -> Corner:
    """The corners of normalised positions `flow [B,2,h,w]` in a map of height x width pixels.

    Positions more than `margin + 1` pixels outside are moved to that distance, where a window of radius `margin` still
    sees nothing of the map. So indices stay small whatever the flow is.
    """
    position = flow.float().flatten(2)
    x = to_pixels(position[:, 0], width).clamp(-(margin + 2.0), width + margin + 1.0)
    y = to_pixels(position[:, 1], height).clamp(-(margin + 2.0), height + margin + 1.0)
    left, top = x.floor(), y.floor()
    return Corner(left.to(torch.int32), top.to(torch.int32), x - left, y - top)


def inside(index: Tensor, length: int) -> Tensor:
    """1.0 for an index on the map, else 0.0; int32 `[...]` to float32 `[...]`."""
    return ((index >= 0) & (index < length)).float()


class BilinearPositions(nn.Module):
    """The four pixels around each query, and their weights."""

    def forward(self, flow: Tensor, features: FeatureMap) -> tuple[Tensor, Tensor]:
        """flow `[B,2,h,w]` -> index into `features.table`, int32 `[B,N,4]`, and weights, float32 `[B,N,4]`, 0 outside.

        The index of a pixel outside is that of one at the edge.
        """
        height, width = features.size
        at = corner(flow, height, width, margin=0)
        x = torch.stack([at.x, at.x + 1, at.x, at.x + 1], dim=2)
        y = torch.stack([at.y, at.y, at.y + 1, at.y + 1], dim=2)
        across = torch.stack([1 - at.right, at.right, 1 - at.right, at.right], dim=2)
        along = torch.stack([1 - at.down, 1 - at.down, at.down, at.down], dim=2)
        weights = across * along * inside(x, width) * inside(y, height)
        cells = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        index = cells + features.starts()[:, None, None]
        rows, channels = features.table.shape
        if channels >= STORED_CHANNELS and rows <= EXACT:
            return stored_integers(index), stored(weights)
        return index, weights


class BilinearSample(nn.Module):
    """`grid_sample(..., padding_mode="zeros", align_corners=False)`, without its operator."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = BilinearPositions()

    def forward(self, features: FeatureMap, flow: Tensor) -> Tensor:
        """`features` at the normalised positions `flow [B,2,h,w]` -> rows `[B,h*w,C]`; zeros outside."""
        index, weights = self.positions(flow, features)
        table = features.table
        taps = table.index_select(0, index.flatten()).reshape(*index.shape, table.shape[1])
        return (taps * weights[..., None].to(taps.dtype)).sum(dim=2)
