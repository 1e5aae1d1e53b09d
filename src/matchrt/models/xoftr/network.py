"""XoFTR, export-first: static shapes, no NonZero, no data-dependent control flow.

Written from the paper (Tuzcuoglu et al., "XoFTR: Cross-modal Feature Matching Transformer", CVPR Workshops 2024) and
the facts of the published checkpoints; module names are the checkpoints' names. Pixel coordinates: x right, y down, the
centre of the top-left pixel is (0, 0). A coarse cell (row i, column j) stands for the pixel (8j, 8i).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matchrt.models.loftr.attention import LocalFeatureTransformer
from matchrt.models.loftr.position import sine_encoding, sine_frequencies
from matchrt.models.parts.coarse_matching import CoarseMatches, Grid, rows_and_columns
from matchrt.models.parts.match_tensors import MatchTensors, finished
from matchrt.models.xoftr.backbone import ImageNormalisation, Taps, XoFTRBackbone, run_backbone
from matchrt.models.xoftr.coarse_matching import CoarseChoices, EitherSelection
from matchrt.models.xoftr.config import XoFTRConfig
from matchrt.models.xoftr.fine import FINE_RATIO, FINE_STRIDE, FineMatching, FineProcess

Pair = tuple[Tensor, Tensor]


class XoFTR(nn.Module):
    """The network. `forward` gives matches; the stages are methods and modules, so that each can be tested alone."""

    def __init__(self, config: XoFTRConfig) -> None:
        super().__init__()
        self.config = config
        self.normalisation = ImageNormalisation()
        self.backbone = XoFTRBackbone(config.block_dims)
        self.loftr_coarse = LocalFeatureTransformer(config.coarse)
        frequencies = sine_frequencies(config.coarse.d_model, fixed_divisor=True)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.coarse_matching = CoarseChoices(config.coarse.d_model, config.match.temperature)
        self.selection = EitherSelection()
        self.fine_process = FineProcess(config)
        self.fine_matching = FineMatching(config.block_dims[0])

    def encode_coarse(
        self, coarse0: Tensor, coarse1: Tensor, mask0: Tensor | None = None, mask1: Tensor | None = None
    ) -> Pair:
        """Coarse maps `[B,C,h,w]` -> tokens `[B,h*w,C]` after position encoding and transformer; row-major cells.

        mask0, mask1: bool `[B,h*w]`, False for padding; None if there is none.
        """
        return self.loftr_coarse(self.tokens(coarse0), self.tokens(coarse1), mask0, mask1)

    def tokens(self, coarse: Tensor) -> Tensor:
        """Coarse map `[B,C,h,w]` -> tokens `[B,h*w,C]` with the position encoding; row-major cells."""
        encoded = coarse + sine_encoding(coarse.shape[2], coarse.shape[3], self.get_buffer("frequencies"))
        return encoded.flatten(2).transpose(1, 2)

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        size0: Tensor | None = None,
        size1: Tensor | None = None,
        max_matches: int = 2048,
    ) -> MatchTensors:
        """Matches of grey images `[B,1,H,W]` in 0..1.

        The images may differ in size; sides are multiples of 8.
        size0, size1: int `[B,2]`, valid height and width in pixels, the rest is padding; None for no padding.
        max_matches: K, the match slots of each pair. The K most probable pairs of cells are refined, and those whose
            best pair of pixels is below the threshold are no matches.
        """
        taps = run_backbone(self.backbone, self.normalisation(image0, size0), self.normalisation(image1, size1))
        grid0, grid1 = self.grid(taps[0][0], size0), self.grid(taps[1][0], size1)
        mask0, mask1 = grid0.mask(), grid1.mask()
        tokens = self.encode_coarse(taps[0][0], taps[1][0], mask0, mask1)
        choices = self.coarse_matching(*tokens, mask0, mask1)
        found = self.selection(choices, grid0, grid1, self.config.match, max_matches)
        return self.refine(taps, tokens, found, (grid0, grid1))

    def refine(
        self, taps: tuple[Taps, Taps], tokens: Pair, found: CoarseMatches, grids: tuple[Grid, Grid]
    ) -> MatchTensors:
        """The matches of the pairs of cells, best first; their score is the confidence of the best pair of pixels."""
        cells = (found.index0, found.index1)
        windows = self.fine_process(taps, tokens, cells)
        shape = cells[0].shape
        *offsets, confidence, margin = (part.unflatten(0, shape) for part in self.fine_matching(*windows))
        keep = (found.scores > 0) & (confidence > self.config.fine_threshold)
        scores, order = torch.where(keep, confidence, 0.0).topk(shape[1], dim=1)
        points = [
            (_corner(index, grid.width) + offset) * FINE_STRIDE
            for index, grid, offset in zip(cells, grids, offsets, strict=True)
        ]
        first, second = (point.gather(1, order[:, :, None].expand(-1, -1, 2)) for point in points)
        return finished(first, second, scores, margin.gather(1, order))

    def grid(self, coarse: Tensor, size: Tensor | None) -> Grid:
        """The grid of a coarse map `[B,C,h,w]` whose image is valid within `size` int `[B,2]` (pixels)."""
        height, width = coarse.shape[2:]
        if size is None:
            return Grid(height, width)
        # A cell is image if its own pixel is, as in a nearest-neighbour reduction of the pixel mask.
        cells = (size.to(torch.float32) / self.config.coarse_stride).ceil().to(torch.int64)
        return Grid(height, width, cells[:, 0], cells[:, 1])


def _corner(cells: Tensor, width: int) -> Tensor:
    """Cells int64 `[B,K]` -> the places of their own pixels, (x, y) float32 `[B,K,2]` in pixels at 1/2."""
    row, column = rows_and_columns(cells, width)
    return torch.stack([column, row], dim=2).to(torch.float32) * FINE_RATIO
