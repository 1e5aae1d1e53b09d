"""LoFTR and its relatives, export-first: static shapes, no NonZero, no data-dependent control flow.

Written from the paper (Sun et al., "LoFTR: Detector-Free Local Feature Matching with Transformers", CVPR 2021) and the
facts of the published checkpoints; module names are the checkpoints' names. Pixel coordinates: x right, y down, the
centre of the top-left pixel is (0, 0). A coarse cell (row i, column j) stands for the pixel (j*stride, i*stride).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matchrt.models.loftr.attention import LocalFeatureTransformer
from matchrt.models.loftr.config import LoFTRConfig
from matchrt.models.loftr.fine_refinement import FinePreprocess, FineRefinement, gather_windows
from matchrt.models.loftr.position import sine_encoding, sine_frequencies
from matchrt.models.loftr.resnet_fpn import ResNetFPN, run_backbone
from matchrt.models.parts.coarse_matching import (
    CoarseScores,
    Grid,
    rows_and_columns,
    select_matches,
    similarity,
)
from matchrt.models.parts.match_tensors import MatchTensors, finished

Pair = tuple[Tensor, Tensor]


class LoFTR(nn.Module):
    """The network. `forward` gives matches; the stages are methods, so that each can be tested and trained alone."""

    def __init__(self, config: LoFTRConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = ResNetFPN(config.initial_dim, config.block_dims, fine=config.fine is not None)
        self.loftr_coarse = LocalFeatureTransformer(config.coarse)
        frequencies = sine_frequencies(config.coarse.d_model, config.fixed_position_divisor)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.coarse_matching = CoarseScores(config.match.temperature, config.match.narrow)
        if config.fine is not None:
            self.fine_preprocess = FinePreprocess(config.coarse.d_model, config.fine.d_model)
            self.loftr_fine = LocalFeatureTransformer(config.fine)
            self.fine_matching = FineRefinement(config.fine, config.fine_window)

    def encode_coarse(
        self, coarse0: Tensor, coarse1: Tensor, mask0: Tensor | None = None, mask1: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Coarse maps `[B,C,h,w]` -> tokens `[B,h*w,C]` after position encoding and transformer; row-major cells.

        mask0, mask1: bool `[B,h*w]`, False for padding; None if there is none.
        """
        return self.loftr_coarse(self.tokens(coarse0), self.tokens(coarse1), mask0, mask1)

    def tokens(self, coarse: Tensor) -> Tensor:
        """Coarse map `[B,C,h,w]` -> tokens `[B,h*w,C]` with the position encoding; row-major cells."""
        frequencies = self.get_buffer("frequencies")
        encoded = coarse + sine_encoding(coarse.shape[2], coarse.shape[3], frequencies)
        return encoded.flatten(2).transpose(1, 2)

    def similarity(
        self, tokens0: Tensor, tokens1: Tensor, mask0: Tensor | None = None, mask1: Tensor | None = None
    ) -> Tensor:
        """Similarity logits `[B,L,S]`, temperature applied; `dual_softmax` of it is the confidence."""
        return similarity(tokens0, tokens1, self.config.match.temperature, mask0, mask1)

    def refine(self, fine: Pair, tokens: Pair, cells: Pair, widths: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Refines matches; every argument is a pair, of image 0 and image 1.

        fine: fine maps `[B,C,H,W]`.
        tokens: coarse features `[B,L,C]`.
        cells: int64 `[B,K]`, the matched cells.
        widths: columns of the coarse grids.

        Returns the expectation `[B,K,2]` (x, y) in -1..1 of image 1's window, and its standard deviation `[B,K]`.
        """
        windows0, windows1 = self.fine_windows(fine, tokens, cells, widths)
        expectation, deviation = self.fine_matching(*self.loftr_fine(windows0, windows1))
        batch, count = cells[0].shape
        return expectation.view(batch, count, 2), deviation.view(batch, count)

    def fine_windows(self, fine: Pair, tokens: Pair, cells: Pair, widths: tuple[int, int]) -> Pair:
        """The windows `[B*K,25,C]` of both images that enter the fine transformer; arguments as in `refine`."""
        ratio = self.config.coarse_stride // self.config.fine_stride
        windows = (
            gather_windows(features, index, width, ratio, self.config.fine_window)
            for features, index, width in zip(fine, cells, widths, strict=True)
        )
        first, second = (self.fine_preprocess(*item) for item in zip(windows, tokens, cells, strict=True))
        return first, second

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        size0: Tensor | None = None,
        size1: Tensor | None = None,
        max_matches: int = 2048,
    ) -> MatchTensors:
        """Matches of grey images `[B,1,H,W]` in 0..1.

        The images may differ in size; sides are multiples of the coarse stride.
        size0, size1: int `[B,2]`, valid height and width in pixels, the rest is padding; None for no padding.
        max_matches: K, the match slots of each pair.
        """
        (coarse0, fine0), (coarse1, fine1) = run_backbone(self.backbone, image0, image1)
        grid0, grid1 = self.grid(coarse0, size0), self.grid(coarse1, size1)
        mask0, mask1 = grid0.mask(), grid1.mask()
        tokens0, tokens1 = self.encode_coarse(coarse0, coarse1, mask0, mask1)
        confidence = self.coarse_matching(tokens0, tokens1, (grid0.width, grid1.width), mask0, mask1)
        matches = select_matches(confidence, grid0, grid1, self.config.match, max_matches)
        keypoints0, keypoints1 = self.pixels(matches.index0, grid0), self.pixels(matches.index1, grid1)
        if fine0 is not None and fine1 is not None:
            cells = (matches.index0, matches.index1)
            expectation, _ = self.refine((fine0, fine1), (tokens0, tokens1), cells, (grid0.width, grid1.width))
            keypoints1 = keypoints1 + expectation * self.config.fine_radius
        return finished(keypoints0, keypoints1, matches.scores)

    def grid(self, coarse: Tensor, size: Tensor | None) -> Grid:
        """The grid of a coarse map `[B,C,h,w]` whose image is valid within `size` int `[B,2]` (pixels)."""
        height, width = coarse.shape[2:]
        if size is None:
            return Grid(height, width)
        # A cell is image if its own pixel is, as in a nearest-neighbour reduction of the pixel mask.
        stride = self.config.coarse_stride
        # Floats are exact here, and a floor of integers costs engines a dozen operators.
        cells = (size.to(torch.float32) / stride).ceil().to(torch.int64)
        return Grid(height, width, cells[:, 0], cells[:, 1])

    def pixels(self, cells: Tensor, grid: Grid) -> Tensor:
        """Cells int64 `[B,K]` -> their pixels float32 `[B,K,2]` (x, y)."""
        row, column = rows_and_columns(cells, grid.width)
        cell = torch.stack([column, row], dim=2)
        return cell.to(torch.float32) * self.config.coarse_stride
