"""EfficientLoFTR, export-first: static shapes, no NonZero, no data-dependent control flow.

Written from the paper (Wang et al., "Efficient LoFTR: Semi-Dense Local Feature Matching with Sparse-Like Speed", CVPR
2024) and the facts of the published checkpoints; module names are those of the reparameterised checkpoints.

Points are given as the official code gives them: pixel u of a cell (0..7) stands for 8 * cell + u - 3.5 in both images,
as in training. x right, y down.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matchrt.models.aggregated_attention import AggregatedTransformer
from matchrt.models.coarse_matching import (
    CoarseMatches,
    Grid,
    dual_softmax,
    rows_and_columns,
    select_matches,
    select_pairs,
    similarity,
)
from matchrt.models.config import ELOFTR_OPT_SIMILARITY, ELoFTRConfig
from matchrt.models.eloftr_fine import (
    WINDOW,
    FineFeatures,
    half_windows,
    neighbourhood_offset,
    pixel_windows,
    window_confidence,
)
from matchrt.models.match_tensors import MatchTensors, finished
from matchrt.models.repvgg import RepVGG

Pair = tuple[Tensor, Tensor]


class ELoFTR(nn.Module):
    """The network. `forward` gives matches; the stages are methods, so that each can be tested alone."""

    def __init__(self, config: ELoFTRConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = RepVGG(config.widths, config.blocks)
        self.loftr_coarse = AggregatedTransformer(config)
        self.fine_preprocess = FineFeatures(config)

    def features(self, image0: Tensor, image1: Tensor) -> tuple[Pair, Pair, Pair]:
        """Backbone features of both images at 1/2, 1/4 and 1/8; one batched call when their sizes agree."""
        if image0.shape[2:] == image1.shape[2:]:
            half, quarter, coarse = (x.chunk(2) for x in self.backbone(torch.cat([image0, image1])))
            return (half[0], half[1]), (quarter[0], quarter[1]), (coarse[0], coarse[1])
        first, second = self.backbone(image0), self.backbone(image1)
        return (first[0], second[0]), (first[1], second[1]), (first[2], second[2])

    def confidence(self, x0: Tensor, x1: Tensor, mask0: Tensor | None = None, mask1: Tensor | None = None) -> Tensor:
        """Confidence `[B,L,S]` of cells `[B,h,w,C]`; masks bool `[B,L]`, `[B,S]`.

        In the optimised configuration it is s / (s + 25) of the similarity s: from 0 to 1, and 0.5 at the authors'
        threshold.
        """
        scores = self.similarity(x0, x1, mask0, mask1)
        if self.config.softmax:
            return dual_softmax(scores)
        positive = scores.clamp(min=0.0)
        return positive / (positive + ELOFTR_OPT_SIMILARITY)

    def similarity(self, x0: Tensor, x1: Tensor, mask0: Tensor | None = None, mask1: Tensor | None = None) -> Tensor:
        """Similarity logits `[B,L,S]`, temperature applied."""
        return similarity(x0.flatten(1, 2), x1.flatten(1, 2), self.config.match.temperature, mask0, mask1)

    def select(self, confidence: Tensor, grid0: Grid, grid1: Grid, max_matches: int) -> CoarseMatches:
        """Mutual nearest cells, or, without the mutual test, all pairs above the threshold: one-to-many."""
        choose = select_matches if self.config.match.mutual else select_pairs
        return choose(confidence, grid0, grid1, self.config.match, max_matches)

    def fine_windows(self, coarse: Pair, quarter: Pair, half: Pair, cells: Pair, widths: tuple[int, int]) -> Pair:
        """Fine features of the matched cells' pixels: `[B,K,64,C]` of image 0, with a margin `[B,K,100,C]` of image 1.

        coarse: the transformer's `[B,h,w,C]`; cells int64 `[B,K]`; widths of the coarse grids.
        """
        scale = self.config.d_model**-0.5
        maps = [x.permute(0, 3, 1, 2) * scale for x in coarse]
        if maps[0].shape == maps[1].shape:
            fine = self.fine_preprocess(torch.cat(maps), torch.cat(quarter), torch.cat(half)).chunk(2)
        else:
            fine = [self.fine_preprocess(*item) for item in zip(maps, quarter, half, strict=True)]
        window0 = pixel_windows(half_windows(fine[0], cells[0], widths[0]), 0)
        return window0, pixel_windows(half_windows(fine[1], cells[1], widths[1]), 1)

    def refine(self, windows: Pair) -> tuple[Tensor, Tensor, Tensor]:
        """Windows to chosen pixels int64 `[B,K]` of image 0 and 1 (row-major in the cell) and the offset `[B,K,2]`."""
        regress = self.config.fine_regress
        confidence = window_confidence(*windows, regress)
        pixel0, pixel1 = rows_and_columns(confidence.flatten(2).argmax(dim=2), WINDOW**2)
        return pixel0, pixel1, neighbourhood_offset(*windows, pixel0, pixel1, regress)

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        size0: Tensor | None = None,
        size1: Tensor | None = None,
        max_matches: int = 2048,
    ) -> MatchTensors:
        """Matches of grey images `[B,1,H,W]` in 0..1; sizes int `[B,2]`: valid height and width, the rest is padding.

        The images may differ in size; sides, of images and of their valid parts, are multiples of 32.
        """
        half, quarter, coarse = self.features(image0, image1)
        grid0, grid1 = self.grid(coarse[0], size0), self.grid(coarse[1], size1)
        x0, x1 = (x.permute(0, 2, 3, 1) for x in coarse)
        x0, x1 = self.loftr_coarse(x0, x1, grid0.valid(), grid1.valid())
        confidence = self.confidence(x0, x1, grid0.mask(), grid1.mask())
        matches = self.select(confidence, grid0, grid1, max_matches)
        cells = (matches.index0, matches.index1)
        windows = self.fine_windows((x0, x1), quarter, half, cells, (grid0.width, grid1.width))
        pixel0, pixel1, offset = self.refine(windows)
        keypoints0 = self.points(cells[0], grid0.width, pixel0)
        keypoints1 = self.points(cells[1], grid1.width, pixel1) + offset
        return finished(keypoints0, keypoints1, matches.scores)

    def grid(self, coarse: Tensor, size: Tensor | None) -> Grid:
        """The coarse grid of a map `[B,C,h,w]`."""
        height, width = coarse.shape[2:]
        if size is None:
            return Grid(height, width)
        cells = torch.div(size.to(torch.int64), self.config.coarse_stride, rounding_mode="floor")
        return Grid(height, width, cells[:, 0], cells[:, 1])

    @staticmethod
    def points(cells: Tensor, width: int, pixels: Tensor) -> Tensor:
        """Points float32 `[B,K,2]` (x, y) of pixels in cells; see the module for the 3.5."""
        row, column = rows_and_columns(cells, width)
        down, right = rows_and_columns(pixels, WINDOW)
        corner = torch.stack([column * WINDOW + right, row * WINDOW + down], dim=2)
        return corner.to(torch.float32) - (WINDOW - 1) / 2
