"""XoFTR's refinement: windows of two levels, the best pair of their pixels, and both points moved (section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from matchrt.models.loftr.fine_refinement import gather_windows
from matchrt.models.parts.coarse_matching import dual_softmax, rows_and_columns
from matchrt.models.xoftr.backbone import Taps
from matchrt.models.xoftr.config import XoFTRConfig
from matchrt.models.xoftr.windows import WindowCrossAttention, WindowSelfAttention

# Pixels along a side of the windows at 1/4 and at 1/2.
MIDDLE_WINDOW, FINE_WINDOW = 3, 5
# Pixels of the maps at 1/4 and at 1/2 along a side of a coarse cell.
MIDDLE_RATIO, FINE_RATIO = 2, 4
# Input pixels along a side of a pixel at 1/2.
FINE_STRIDE = 2
# How far a point moves from the middle of its pixel, in pixels at 1/2.
REACH = 0.5
_TEMPERATURE = 0.1

Pair = tuple[Tensor, Tensor]


class FineProcess(nn.Module):
    """The features of the windows at 1/2, to which the coarse level and the windows at 1/4 have contributed."""

    def __init__(self, config: XoFTRConfig) -> None:
        super().__init__()
        fine, middle, coarse = config.block_dims
        self.conv_merge = nn.Sequential(
            nn.Conv2d(2 * coarse, middle, 1, bias=False),
            nn.Conv2d(middle, middle, 3, padding=1, groups=middle, bias=False),
            nn.BatchNorm2d(middle),
        )
        self.out_conv_m = nn.Conv2d(middle, middle, 1, bias=False)
        self.out_conv_f = nn.Conv2d(fine, fine, 1, bias=False)
        self.self_attn_m = WindowSelfAttention(middle, config.middle_heads, pre_position=False)
        self.cross_attn_m = WindowCrossAttention(middle, config.middle_heads)
        self.self_attn_f = WindowSelfAttention(fine, config.fine_heads, pre_position=True)
        self.cross_attn_f = WindowCrossAttention(fine, config.fine_heads)
        self.down_proj_m_f = nn.Linear(middle, fine, bias=False)
        self.cut = WindowCut()

    def forward(self, taps: tuple[Taps, Taps], tokens: Pair, cells: Pair) -> Pair:
        """The windows `[B*K,25,C]` of both images; every argument is a pair, of image 0 and image 1.

        taps: the backbone's features `[B,C,h,w]` at 1/8, 1/4 and 1/2.
        tokens: the coarse features `[B,L,C]` after the transformer.
        cells: int64 `[B,K]`, the matched cells.
        """
        if taps[0][0].shape == taps[1][0].shape:  # one batch, which GPUs compute faster
            parts = [
                self._cut([torch.cat(maps) for maps in zip(*taps, strict=True)], torch.cat(tokens), torch.cat(cells))
            ]
        else:
            parts = [self._cut(*item) for item in zip(taps, tokens, cells, strict=True)]
        coarse, middle, fine = (torch.cat(level) for level in zip(*parts, strict=True))
        middle0, middle1 = self.cross_attn_m(*self.self_attn_m(middle, coarse).chunk(2))
        coarser = self.down_proj_m_f(torch.cat([middle0, middle1]))
        first, second = self.cross_attn_f(*self.self_attn_f(fine, coarser).chunk(2))
        return first, second

    def _cut(self, taps: Sequence[Tensor], tokens: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[B*K,1,C]`, `[B*K,9,C]` and `[B*K,25,C]` of one image or of a batch of both, at the matched cells."""
        before, quarter, half = taps
        after = tokens.transpose(1, 2).reshape(before.shape)
        merged = self.conv_merge(torch.cat([after, before], dim=1))
        return self.cut(merged, self.out_conv_m(quarter), self.out_conv_f(half), cells)


class WindowCut(nn.Module):
    """Cuts the windows of the matched cells out of the maps. A module without weights, for its name in a graph."""

    def forward(self, coarse: Tensor, middle: Tensor, fine: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps `[B,C,h,w]` at 1/8, 1/4, 1/2 and cells int64 `[B,K]` -> `[B*K,1,C]`, `[B*K,9,C]`, `[B*K,25,C]`."""
        width = coarse.shape[3]
        maps = ((coarse, 1, 1), (middle, MIDDLE_RATIO, MIDDLE_WINDOW), (fine, FINE_RATIO, FINE_WINDOW))
        one, few, many = (gather_windows(x, cells, width, ratio, side).flatten(0, 1) for x, ratio, side in maps)
        return one, few, many


class FineMatching(nn.Module):
    """The best pair of pixels of two windows, and where in these pixels the points are."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = (dim * _TEMPERATURE) ** -1.0
        self.fine_proj = nn.Linear(dim, dim, bias=False)
        self.subpixel_mlp = nn.Sequential(
            nn.Linear(2 * dim, 2 * dim, bias=False), nn.ReLU(), nn.Linear(2 * dim, 4, bias=False)
        )

    def confidence(self, x0: Tensor, x1: Tensor) -> Tensor:
        """The confidence `[N,25,25]` of all pairs of pixels of x0 and x1 `[N,25,C]`."""
        return dual_softmax((self.fine_proj(x0) * self.scale) @ self.fine_proj(x1).transpose(1, 2))

    def forward(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x0 and x1 `[N,25,C]` -> offsets of both points `[N,2]`, confidence `[N]`, margin `[N]`.

        Offsets are (x, y) in pixels at 1/2, from the window's middle. The margin is (best - second) / best.
        """
        best, pair = self.confidence(x0, x1).flatten(1).topk(2, dim=1)
        pixels = rows_and_columns(pair[:, 0], FINE_WINDOW**2)
        chosen = [_picked(x, pixel) for x, pixel in zip((x0, x1), pixels, strict=True)]
        moves = (self.subpixel_mlp(torch.cat(chosen, dim=1)).tanh() * REACH).chunk(2, dim=1)
        first, second = (_places(pixel) + move for pixel, move in zip(pixels, moves, strict=True))
        return first, second, best[:, 0], 1.0 - best[:, 1] / best[:, 0]


def _picked(windows: Tensor, pixel: Tensor) -> Tensor:
    """The pixels `[N]` of windows `[N,25,C]` -> `[N,C]`."""
    return windows.gather(1, pixel[:, None, None].expand(-1, 1, windows.shape[2]))[:, 0]


def _places(pixel: Tensor) -> Tensor:
    """Pixels `[N]` of windows -> (x, y) float32 `[N,2]` from the window's middle."""
    row, column = rows_and_columns(pixel, FINE_WINDOW)
    return torch.stack([column, row], dim=1).to(torch.float32) - FINE_WINDOW // 2
