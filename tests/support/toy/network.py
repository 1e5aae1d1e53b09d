"""The smallest network that matches: two convolutions, a norm, and the dual softmax of matchrt's parts."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.parts.coarse_matching import CoarseScores, Grid, rows_and_columns, select_matches
from matchrt.models.parts.config import CoarseMatchConfig
from matchrt.models.parts.match_tensors import MatchTensors, finished


@dataclass(frozen=True)
class ToyConfig:
    """channels: of the features. coarse_stride: side of a cell in pixels, which one filter sees whole."""

    channels: int = 64
    coarse_stride: int = 8
    match: CoarseMatchConfig = field(default_factory=lambda: CoarseMatchConfig(temperature=0.05, border=0))


class Toy(nn.Module):
    """Grey images to matches of whole cells."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(1, config.channels, config.coarse_stride, config.coarse_stride)
        self.body = nn.Conv2d(config.channels, config.channels, 1)
        self.norm = nn.LayerNorm(config.channels)
        self.coarse_matching = CoarseScores(config.match.temperature)

    def tokens(self, image: Tensor) -> Tensor:
        """`[B,1,H,W]` in 0..1 -> `[B,cells,C]`."""
        features = self.body(F.relu(self.stem(image)))
        return self.norm(features.flatten(2).transpose(1, 2))

    def grid(self, image: Tensor, size: Tensor | None) -> Grid:
        """The grid of an image that is valid within `size` int `[B,2]`."""
        stride = self.config.coarse_stride
        height, width = image.shape[2] // stride, image.shape[3] // stride
        if size is None:
            return Grid(height, width)
        cells = (size.to(torch.float32) / stride).ceil().to(torch.int64)
        return Grid(height, width, cells[:, 0], cells[:, 1])

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        size0: Tensor | None = None,
        size1: Tensor | None = None,
        max_matches: int = 2048,
    ) -> MatchTensors:
        """As the networks of matchrt."""
        grid0, grid1 = self.grid(image0, size0), self.grid(image1, size1)
        confidence = self.coarse_matching(
            self.tokens(image0), self.tokens(image1), (grid0.width, grid1.width), grid0.mask(), grid1.mask()
        )
        found = select_matches(confidence, grid0, grid1, self.config.match, max_matches)
        keypoints = []
        for cells, grid in ((found.index0, grid0), (found.index1, grid1)):
            row, column = rows_and_columns(cells, grid.width)
            keypoints.append(torch.stack([column, row], dim=2).to(torch.float32) * self.config.coarse_stride)
        return finished(keypoints[0], keypoints[1], found.scores)
