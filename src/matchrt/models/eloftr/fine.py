"""EfficientLoFTR's fine features and two-stage refinement (section 3.4), for the matched cells only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.eloftr.config import ELoFTRConfig
from matchrt.models.parts.coarse_matching import log_sum_exp, rows_and_columns
from matchrt.models.parts.halves import halves
from matchrt.models.parts.stored import stored_integers

WINDOW = 8  # pixels along a side of a coarse cell
_HALF_WINDOW = 6  # the cell's pixels and one more around them depend on so many half-resolution pixels along a side
# The authors divide the second stage's similarities by this.
_REGRESS_TEMPERATURE = 10.0


class FineFeatures(nn.Module):
    """Feature pyramid from the transformer's coarse features to half of the input's resolution."""

    def __init__(self, config: ELoFTRConfig) -> None:
        super().__init__()
        _, half, quarter, coarse = config.widths
        at_quarter, at_half, last = config.pyramid_widths
        self.layer3_outconv = nn.Conv2d(coarse, at_quarter, 1, bias=False)
        self.layer2_outconv = nn.Conv2d(quarter, at_quarter, 1, bias=False)
        self.layer2_outconv2 = _merge(at_quarter, at_half)
        self.layer1_outconv = nn.Conv2d(half, at_half, 1, bias=False)
        self.layer1_outconv2 = _merge(at_half, last)

    def forward(self, coarse: Tensor, quarter: Tensor, half: Tensor) -> Tensor:
        """Coarse `[B,C3,H/8,W/8]`, quarter `[B,C2,H/4,W/4]`, half `[B,C1,H/2,W/2]` -> `[B,C,H/2,W/2]`."""
        x = self.layer2_outconv2(self.layer2_outconv(quarter) + _doubled(self.layer3_outconv(coarse)))
        return self.layer1_outconv2(self.layer1_outconv(half) + _doubled(x))


def _merge(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(0.01),
        nn.Conv2d(channels, out_channels, 3, 1, 1, bias=False),
    )


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def half_windows(features: Tensor, cells: Tensor, grid_width: int) -> Tensor:
    """The 6x6 pixels of `features [B,C,H/2,W/2]` around the cells `[B,K]` -> `[B,K,36,C]`, edges repeated."""
    batch, channels, height, width = features.shape
    flat = features.permute(0, 2, 3, 1).reshape(-1, channels)
    row, column = rows_and_columns(cells, grid_width)
    offset = torch.arange(_HALF_WINDOW, device=cells.device) - 1
    rows = (row[:, :, None] * (WINDOW // 2) + offset).clamp(0, height - 1)
    columns = (column[:, :, None] * (WINDOW // 2) + offset).clamp(0, width - 1)
    index = (rows[:, :, :, None] * width + columns[:, :, None, :]).flatten(2)
    if isinstance(height, int):  # a static graph is made for GPUs, which compute the index for every channel otherwise
        # The place in one image, which is below 2^24 at any size. That in all images of a batch may not be.
        index = stored_integers(index).long()
    if not isinstance(batch, int) or batch > 1:
        index = index + torch.arange(batch, device=cells.device)[:, None, None] * (height * width)
    return F.embedding(index, flat)


def pixel_windows(windows: Tensor, margin: int) -> Tensor:
    """Half-resolution windows `[B,K,36,C]` to the cell's pixels and `margin` around: `[B,K,(8+2*margin)^2,C]`.

    The official code enlarges the whole map and cuts windows out of it. The windows' pixels are the same numbers, and
    the map of all pixels, the network's largest tensor by far, is never made.
    """
    position = torch.arange(-margin, WINDOW + margin, device=windows.device, dtype=windows.dtype) / 2 + 0.75
    pixels = torch.arange(_HALF_WINDOW, device=windows.device, dtype=windows.dtype)
    axis = (1.0 - (position[:, None] - pixels).abs()).clamp(min=0.0)
    return torch.kron(axis, axis) @ windows


def window_order(window0: Tensor, window1: Tensor, regress: int) -> Tensor:
    """First stage: logarithms `[B,K,64,64]` of the confidence between the pixels of both cells.

    window0 `[B,K,64,C]`, window1 `[B,K,100,C]`: its margin counts in the softmax. The last `regress` channels do not.
    Dual softmax as in `fast_dual_softmax`: of the similarity and, in a product of its own, its transpose.
    """
    scale = window0.shape[3] ** -0.5
    used = window0.shape[3] - regress
    first, second = window0[..., :used] * scale, window1[..., :used] * scale
    scores, transposed = first @ second.transpose(2, 3), second @ first.transpose(2, 3)
    rows, columns = log_sum_exp(scores), log_sum_exp(transposed)
    order = 2 * scores - rows[..., :, None] - columns[..., None, :]
    return order.unflatten(3, (WINDOW + 2, WINDOW + 2))[..., 1:-1, 1:-1].flatten(3)


def neighbourhood_offset(
    window0: Tensor, window1: Tensor, pixel0: Tensor, pixel1: Tensor, regress: int
) -> Tensor:  # fmt: skip
    """Second stage: the expected offset (x, y) in -1..1, `[B,K,2]`, of image 1's point among 3x3 pixels.

    pixel0, pixel1 int64 `[B,K]`: the chosen pixels, row-major in the 8x8 cells. The official code reads the 3x3 pixels
    out of the 10x10 window with the 8x8 cell's numbers: they lie around the pixel up and left of the chosen one, and a
    -1 means the window's last row or column. The weights were trained with that, so it stays.
    """
    row, column = rows_and_columns(pixel1, WINDOW)
    step = torch.arange(3, device=pixel1.device)
    rows, columns = row[:, :, None] + step - 1, column[:, :, None] + step - 1
    side = WINDOW + 2
    rows, columns = (torch.where(line < 0, line + side, line) for line in (rows, columns))
    index1 = (rows[:, :, :, None] * side + columns[:, :, None, :]).flatten(2)
    point = picked(window0[..., -regress:], pixel0[:, :, None])
    near = picked(window1[..., -regress:], index1)
    scores = (near @ point.transpose(2, 3))[..., 0] * (regress**-0.5 / _REGRESS_TEMPERATURE)
    line = (step - 1).to(window0.dtype)
    grid = torch.stack([line.repeat(3), line.repeat_interleave(3)], dim=1)
    return scores.softmax(dim=2) @ grid


def picked(windows: Tensor, index: Tensor) -> Tensor:
    """Pixels `index [B,K,n]` of `windows [B,K,P,C]` -> `[B,K,n,C]`."""
    batch, count, pixels, channels = windows.shape
    first = torch.arange(batch * count, device=index.device).reshape(batch, count, 1) * pixels
    return F.embedding(index + first, windows.reshape(-1, channels))


class FineWindows(nn.Module):
    """Cuts the matched cells out of the fine maps. A module without weights, for its name in a graph."""

    def forward(self, fine: list[Tensor], cells: list[Tensor], widths: list[int]) -> tuple[Tensor, Tensor]:
        """Fine maps `[B,C,H/2,W/2]`, cells `[B,K]` and grid widths: of both images one batch after the other, or two.

        Gives `[B,K,64,C]` of image 0 and `[B,K,100,C]` of image 1, which has a margin.
        """
        windows = [half_windows(*item) for item in zip(fine, cells, widths, strict=True)]
        first, second = both_of(windows)
        return pixel_windows(first, 0), pixel_windows(second, 1)


class FineMatching(nn.Module):
    """Both stages of the refinement. A module without weights, for its name in a graph."""

    def __init__(self, regress: int) -> None:
        super().__init__()
        self.regress = regress

    def forward(self, window0: Tensor, window1: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Chosen pixels int64 `[B,K]` of image 0 and 1 (row-major in the cell), offset `[B,K,2]`, margin `[B,K]`."""
        order = window_order(window0, window1, self.regress).flatten(2)
        pixel0, pixel1 = rows_and_columns(order.argmax(dim=2), WINDOW**2)
        # Engines have no margin, so their graphs have no such top-K either.
        best = order.topk(2, dim=2).values
        margin = 1.0 - (best[..., 1] - best[..., 0]).exp()
        return pixel0, pixel1, neighbourhood_offset(window0, window1, pixel0, pixel1, self.regress), margin


def both_of(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The tensors of image 0 and of image 1, from one tensor of both or from two."""
    first, second = halves(parts[0]) if len(parts) == 1 else parts
    return first, second
