"""One forward pass of eloftr-lite with the losses of its three decisions: cells, pixels of cells, and the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matchrt.models.eloftr.half_resolution import (
    BEFORE,
    CELL,
    SIDE,
    STRIDE,
    HalfMatching,
    neighbourhood_offset,
    window_order,
)
from matchrt.models.eloftr.network import ELoFTR
from matchrt.models.parts.coarse_matching_bounded import CosineScores
from tools.train_lite.geometry import transfer
from tools.train_lite.losses import coarse_loss
from tools.train_lite.pairs import Pairs
from tools.train_lite.step import COARSE

PIXEL_WEIGHT = 0.25
OFFSET_WEIGHT = 1.0
# Pixels of the map by which the second stage's middle is off in training, as the first stage's choice may be.
JITTER = 0.6


@dataclass(frozen=True)
class FineTruth:
    """Where the pixels of matched cells of view 0 really are, for K cells a pair.

    place: float `[B,K,16,2]`, (row, column) in the 6 x 6 window of view 1, of which whole numbers are pixels.
    seen: bool `[B,K,16]`: the place is visible and within the window.
    """

    place: Tensor
    seen: Tensor


def fine_truth(pairs: Pairs, index0: Tensor, index1: Tensor, valid: Tensor) -> FineTruth:
    """The truth of the cells `index0`, `index1` int64 `[B,K]`; valid bool `[B,K]`."""
    (height0, width0), (height1, width1) = (image.shape[2:] for image in (pairs.image0, pairs.image1))
    step = STRIDE * (torch.arange(CELL, device=index0.device) - BEFORE)
    corner_x, corner_y = 8 * (index0 % (width0 // 8)), 8 * (index0 // (width0 // 8))
    x = (corner_x[:, :, None, None] + step[None, :]).expand(-1, -1, CELL, CELL).flatten(2)
    y = (corner_y[:, :, None, None] + step[:, None]).expand(-1, -1, CELL, CELL).flatten(2)
    half0, half1 = max(height0, width0) / 2, max(height1, width1) / 2
    scene = pairs.scene
    there_x, there_y, seen = transfer(
        scene,
        scene.view(0),
        scene.view(1),
        ((x.flatten(1) - (width0 - 1) / 2) / half0),
        ((y.flatten(1) - (height0 - 1) / 2) / half0),
    )
    pixel_x = torch.nan_to_num(there_x * half1 + (width1 - 1) / 2, nan=-1e4).clamp(-1e4, 1e4).view(x.shape)
    pixel_y = torch.nan_to_num(there_y * half1 + (height1 - 1) / 2, nan=-1e4).clamp(-1e4, 1e4).view(y.shape)
    column = (pixel_x - 8 * (index1 % (width1 // 8))[:, :, None]) / STRIDE + BEFORE + 1
    row = (pixel_y - 8 * (index1 // (width1 // 8))[:, :, None]) / STRIDE + BEFORE + 1
    place = torch.stack([row, column], dim=3)
    inside = ((place > -0.5) & (place < SIDE - 0.5)).all(dim=3)
    return FineTruth(place, seen.view(x.shape) & inside & valid[:, :, None])


def pixel_loss(order: Tensor, truth: FineTruth) -> Tensor:
    """Negative log-likelihood of the true pixel of view 1 for each pixel of view 0; order `[B,K,16,36]`."""
    place = truth.place.round().long().clamp(0, SIDE - 1)
    target = place[..., 0] * SIDE + place[..., 1]
    picked = order.gather(3, target[..., None])[..., 0].clamp(min=-20.0)
    return -(picked * truth.seen).sum() / truth.seen.sum().clamp(min=1)


def offset_loss(windows: tuple[Tensor, Tensor], truth: FineTruth, regress: int, noise: Tensor) -> Tensor:
    """Squared distance (map pixels) of the second stage's offset, for one pixel of each cell of view 0.

    noise: `[B,K,18]`, uniform in 0..1: which pixel is taken, and how far the middle of the 3 x 3 pixels is off.
    """
    pixel0 = (noise[..., :16] * truth.seen).argmax(dim=2)
    place = truth.place.gather(2, pixel0[:, :, None, None].expand(-1, -1, 1, 2))[:, :, 0]
    seen = truth.seen.gather(2, pixel0[:, :, None])[:, :, 0]
    middle = (place + JITTER * (2 * noise[..., 16:18] - 1)).round().clamp(1, SIDE - 2)
    target = (place - middle).flip(2)
    good = seen & (target.abs().amax(dim=2) <= 1.0)
    found = neighbourhood_offset(*windows, pixel0, middle[..., 0].long(), middle[..., 1].long(), regress)
    distance = (found - target).square().sum(dim=2)
    return (torch.where(good, distance, torch.zeros_like(distance))).sum() / good.sum().clamp(min=1)


def compile_parts(net: ELoFTR) -> None:
    """Compiles backbone, encoder layers, pyramid and coarse loss one by one."""
    torch._dynamo.config.cache_size_limit = 128
    net.backbone.compile(dynamic=False)
    net.fine_preprocess.compile(dynamic=False)
    for layer in net.loftr_coarse.layers:
        layer.compile(dynamic=False)
    COARSE.loss = torch.compile(coarse_loss, dynamic=False)


def valid_cells(mask: Tensor | None, rows: int, columns: int) -> Tensor | None:
    """int `[B,2]`: rows and columns of cells that hold image, of a mask `[B,rows*columns]` whose corner does."""
    if mask is None:
        return None
    grid = mask.view(-1, rows, columns)
    return torch.stack([grid[:, :, 0].sum(dim=1), grid[:, 0].sum(dim=1)], dim=1)


def losses(
    net: ELoFTR, pairs: Pairs, positives: tuple[Tensor, Tensor], generator: torch.Generator, amp: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Total, coarse and fine loss; positives: `[B,K]` twice from `losses.sample_positives`."""
    assert isinstance(net.coarse_matching, CosineScores) and isinstance(net.fine_matching, HalfMatching)
    device = pairs.image0.device
    index0, valid = positives
    index1 = pairs.truth.nearest0.gather(1, index0)
    noise = torch.rand(*index0.shape, 18, device=device, generator=generator)
    truth = fine_truth(pairs, index0, index1, valid)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
        stages = net.features(pairs.image0, pairs.image1)
        x0, x1 = net.coarse(stages)
        limits = valid_cells(pairs.mask0, *x0.shape[1:3]), valid_cells(pairs.mask1, *x1.shape[1:3])
        x0, x1 = net.loftr_coarse(x0, x1, *limits)
        windows0, windows1 = net.windows(x0, x1, stages, (index0, index1))
    with torch.autocast(device.type, enabled=False):
        tokens0, tokens1 = x0.float().flatten(1, 2), x1.float().flatten(1, 2)
        similarity = net.coarse_matching.similarity(tokens0, tokens1, pairs.mask0, pairs.mask1)
        coarse = COARSE.loss(similarity, pairs.truth)
        windows = windows0.float(), windows1.float()
        regress = net.config.fine_regress
        pixel = pixel_loss(window_order(*windows, regress), truth)
        offset = offset_loss(windows, truth, regress, noise)
    fine = PIXEL_WEIGHT * pixel + OFFSET_WEIGHT * offset
    return coarse + fine, coarse.detach(), fine.detach()
