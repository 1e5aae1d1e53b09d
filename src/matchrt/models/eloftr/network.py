"""EfficientLoFTR, export-first: static shapes, no NonZero, no data-dependent control flow.

Written from the paper (Wang et al., "Efficient LoFTR: Semi-Dense Local Feature Matching with Sparse-Like Speed", CVPR
2024) and the facts of the published checkpoints; module names are those of the reparameterised checkpoints.

Points are given as the official code gives them: pixel u of a cell (0..7) stands for 8 * cell + u - 3.5 in both images,
as in training. x right, y down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from matchrt.models.eloftr.aggregated_attention import AggregatedTransformer
from matchrt.models.eloftr.config import ELoFTRConfig
from matchrt.models.eloftr.fine import WINDOW, FineFeatures, FineMatching, FineWindows, both_of
from matchrt.models.eloftr.half_resolution import HalfMatching, HalfWindows
from matchrt.models.eloftr.repvgg import RepVGG
from matchrt.models.eloftr.rescoring import CANDIDATE, Rescoring
from matchrt.models.parts.coarse_matching import (
    CoarseMatches,
    CoarseScores,
    Confidence,
    Grid,
    rows_and_columns,
    select_matches,
    select_pairs,
)
from matchrt.models.parts.coarse_matching_bounded import CosineScores
from matchrt.models.parts.match_tensors import MatchTensors, finished

Pair = tuple[Tensor, Tensor]
# Features at 1/2, 1/4 and 1/8: of both images, one batch after the other, if their sizes agree; else of each image.
Stages = list[tuple[Tensor, Tensor, Tensor]]


class ELoFTR(nn.Module):
    """The network. `forward` gives matches; the stages are methods, so that each can be tested alone."""

    def __init__(self, config: ELoFTRConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = RepVGG(config.widths, config.blocks)
        self.loftr_coarse = AggregatedTransformer(config)
        self.coarse_matching: CoarseScores | CosineScores
        if config.cosine:
            self.coarse_matching = CosineScores()
        else:
            self.coarse_matching = CoarseScores(config.match.temperature, config.match.narrow, config.softmax)
        self.fine_preprocess = FineFeatures(config)
        half = config.half_resolution
        self.fine_windows: FineWindows | HalfWindows = HalfWindows() if half else FineWindows()
        kind = HalfMatching if half else FineMatching
        self.fine_matching: FineMatching | HalfMatching = kind(config.fine_regress)
        self.rescoring = Rescoring() if config.rescored else None

    def features(self, image0: Tensor, image1: Tensor) -> Stages:
        """Backbone features of both images; one batched call when their sizes agree."""
        if image0.shape[2:] == image1.shape[2:]:
            return [self.backbone(torch.cat([image0, image1]))]
        return [self.backbone(image0), self.backbone(image1)]

    def select(self, confidence: Confidence, grid0: Grid, grid1: Grid, max_matches: int) -> CoarseMatches:
        """Mutual nearest cells, or, without the mutual test, all pairs above the threshold: one-to-many.

        Matches that are scored anew are chosen from a lower confidence on, and never one-to-many.
        """
        rules = self.config.match
        if self.rescoring is not None:
            rules = replace(rules, threshold=min(rules.threshold, CANDIDATE))
            return select_matches(confidence, grid0, grid1, rules, max_matches)
        choose = select_matches if rules.mutual else select_pairs
        return choose(confidence, grid0, grid1, rules, max_matches)

    def windows(self, x0: Tensor, x1: Tensor, stages: Stages, cells: Pair) -> Pair:
        """Fine features of the matched cells' pixels: `[B,K,64,C]` of image 0 and `[B,K,100,C]` of image 1.

        The windows of image 1 have a margin of one pixel. On the half-resolution map they have 16 and 36 pixels.
        x0, x1: the transformer's `[B,h,w,C]`.
        stages: as from `features`.
        cells: int64 `[B,K]` of both images.
        """
        coarse, picked = [x0, x1], list(cells)
        if len(stages) == 1:
            coarse, picked = [torch.cat(coarse)], [torch.cat(picked)]
        scale = self.config.d_model**-0.5
        fine = [
            self.fine_preprocess(x.permute(0, 3, 1, 2) * scale, quarter, half)
            for x, (half, quarter, _) in zip(coarse, stages, strict=True)
        ]
        return self.fine_windows(fine, picked, [x.shape[2] for x in coarse])

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        size0: Tensor | None = None,
        size1: Tensor | None = None,
        max_matches: int = 2048,
    ) -> MatchTensors:
        """Matches of grey images `[B,1,H,W]` in 0..1.

        The images may differ in size. Sides, of images and of their valid parts, are multiples of 32.
        size0, size1: int `[B,2]`, valid height and width in pixels, the rest is padding; None for no padding.
        max_matches: K, the match slots of each pair.
        """
        stages = self.features(image0, image1)
        x0, x1 = self.coarse(stages)
        grid0, grid1 = self.grid(x0, size0), self.grid(x1, size1)
        x0, x1 = self.loftr_coarse(x0, x1, grid0.valid(), grid1.valid())
        masks = grid0.mask(), grid1.mask()
        confidence = self.coarse_matching(x0.flatten(1, 2), x1.flatten(1, 2), (grid0.width, grid1.width), *masks)
        matches = self.select(confidence, grid0, grid1, max_matches)
        cells = (matches.index0, matches.index1)
        keypoints0, keypoints1, margin = self.refined(self.windows(x0, x1, stages, cells), cells, (grid0, grid1))
        if self.rescoring is None:
            return finished(keypoints0, keypoints1, matches.scores, margin)
        margin = torch.minimum(margin, above_the_cut(matches.scores))
        keypoints1, scores = self.rescoring(keypoints0, keypoints1, matches.scores, matches.index0, grid0)
        found = finished(*self.ordered(keypoints0, keypoints1, scores, margin))
        return replace(found, reach=scores.new_full((1,), self.config.score_reach))

    def ordered(self, *slots: Tensor) -> Iterator[Tensor]:
        """Points of both images, scores and margins, `[B,K,...]`, by descending score; low scores become 0."""
        scores, order = slots[2].topk(slots[2].shape[1], dim=1)
        yield from (slot.gather(1, order[:, :, None].expand(-1, -1, 2)) for slot in slots[:2])
        yield torch.where(scores > self.config.match.threshold, scores, torch.zeros_like(scores))
        yield slots[3].gather(1, order)

    def refined(self, windows: Pair, cells: Pair, grids: tuple[Grid, Grid]) -> tuple[Tensor, Tensor, Tensor]:
        """Points `[B,K,2]` of both images and the margin `[B,K]`, from the windows of the matched cells `[B,K]`."""
        if isinstance(self.fine_matching, HalfMatching):
            offset0, offset1, margin = self.fine_matching(*windows)
            places = [corners(index, grid.width) for index, grid in zip(cells, grids, strict=True)]
            return places[0] + offset0, places[1] + offset1, margin
        pixel0, pixel1, offset, margin = self.fine_matching(*windows)
        first = self.points(cells[0], grids[0].width, pixel0)
        return first, self.points(cells[1], grids[1].width, pixel1) + offset, margin

    @staticmethod
    def coarse(stages: Stages) -> Pair:
        """The backbone's coarse features of image 0 and image 1, `[B,h,w,C]`."""
        first, second = both_of([coarse.permute(0, 2, 3, 1) for _, _, coarse in stages])
        return first, second

    def grid(self, coarse: Tensor, size: Tensor | None) -> Grid:
        """The coarse grid of features `[B,h,w,C]` whose image is valid within `size` int `[B,2]` (pixels)."""
        height, width = coarse.shape[1:3]
        if size is None:
            return Grid(height, width)
        cells = torch.div(size.to(torch.int64), self.config.coarse_stride, rounding_mode="floor")
        return Grid(height, width, cells[:, 0], cells[:, 1])

    @staticmethod
    def points(cells: Tensor, width: int, pixels: Tensor) -> Tensor:
        """Points float32 `[B,K,2]` (x, y) of pixels in cells; see the module for the 3.5."""
        down, right = rows_and_columns(pixels, WINDOW)
        return corners(cells, width) + torch.stack([right, down], dim=2).to(torch.float32) - (WINDOW - 1) / 2


def above_the_cut(confidence: Tensor) -> Tensor:
    """By what share of it each confidence `[B,K]`, descending, lies above the last one; 1 where slots are left."""
    last = confidence[:, -1:]
    return torch.where(last > 0, confidence / last - 1, torch.ones_like(confidence))


def corners(cells: Tensor, width: int) -> Tensor:
    """Eight times the column and row of each cell: float32 `[B,K,2]` (x, y) of int64 `[B,K]`."""
    row, column = rows_and_columns(cells, width)
    return torch.stack([column * WINDOW, row * WINDOW], dim=2).to(torch.float32)
