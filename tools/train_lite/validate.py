"""Precision and recall on held-out tiles, matched as at inference: threshold, border, mutual nearest, refinement."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from matchrt.models.parts.coarse_matching import Grid
from tools.train_lite.geometry import transfer
from tools.train_lite.networks import Network
from tools.train_lite.pairs import STRIDE, Pairs, Recipe, Shape, make_pairs
from tools.train_lite.tiles import Pool

SLOTS = 2400


@dataclass(frozen=True)
class Score:
    """Means over pairs; precision at N pixels of the matches above the threshold, recall of the true matches.

    false: matches of a pair that shows unrelated content.
    """

    precision3: float
    precision1: float
    recall3: float
    matches: float
    false: float

    def row(self) -> dict[str, float]:
        """As CSV columns."""
        return asdict(self)


def true_points(pairs: Pairs, points0: Tensor) -> Tensor:
    """Where the scene puts points0 `[B,K,2]` in image 1, pixels (x, y); infinite where that is hidden."""
    (height0, width0), (height1, width1) = (image.shape[2:] for image in (pairs.image0, pairs.image1))
    half0, half1 = max(height0, width0) / 2, max(height1, width1) / 2
    x, y = (points0[..., 0] - (width0 - 1) / 2) / half0, (points0[..., 1] - (height0 - 1) / 2) / half0
    scene = pairs.scene
    there_x, there_y, seen = transfer(scene, scene.view(0), scene.view(1), x, y)
    true = torch.stack([there_x * half1 + (width1 - 1) / 2, there_y * half1 + (height1 - 1) / 2], dim=2)
    known = seen[..., None] & true.isfinite().all(dim=2, keepdim=True)
    return torch.where(known, true, torch.full_like(true, torch.inf))


def errors(pairs: Pairs, points0: Tensor, points1: Tensor) -> Tensor:
    """Distance in pixels of points1 `[B,K,2]` from where the scene puts points0; infinite where that is hidden."""
    return (true_points(pairs, points0) - points1).norm(dim=2)


@torch.no_grad()
def score_pairs(net: Network, pairs: Pairs, amp: bool) -> list[float]:
    """Sums over a batch: right within 3 px, within 1 px, matches, findable, pairs, matches and pairs of unrelated."""
    with torch.autocast(pairs.image0.device.type, dtype=torch.bfloat16, enabled=amp):
        found = net(pairs.image0, pairs.image1, max_matches=SLOTS)
    error = errors(pairs, found.keypoints0.float(), found.keypoints1.float())
    real = found.scores > 0
    truth, border = pairs.truth, net.config.match.border
    grid0, grid1 = (Grid(*(side // STRIDE for side in image.shape[2:])) for image in (pairs.image0, pairs.image1))
    border0 = grid0.interior(border, error.device)
    border1 = grid1.interior(border, error.device).expand(len(error), -1).gather(1, truth.nearest0)
    related = pairs.scene.positive[:, None]
    kept = real & related
    sums = [
        (kept & (error < 3)).sum(),
        (kept & (error < 1)).sum(),
        kept.sum(),
        (truth.positive & border0 & border1).sum(),
        related.sum(),
        (real & ~related).sum(),
        (~related).sum(),
    ]
    return [float(part) for part in sums]


def validate(
    net: Network, pool: Pool, shape: Shape, recipe: Recipe, batches: int, amp: bool, threshold: float = 0.2
) -> Score:
    """Scores the network on the same pairs every time."""
    net.eval()
    before = net.config
    net.config = replace(before, match=replace(before.match, threshold=threshold))  # type: ignore[assignment]
    generator = torch.Generator(pool.table.device)
    totals = [0.0] * 7
    for batch in range(batches):
        generator.manual_seed(987_654 + batch)
        sums = score_pairs(net, make_pairs(pool, generator, shape, recipe), amp)
        totals = [total + part for total, part in zip(totals, sums, strict=True)]
    net.config = before  # type: ignore[assignment]
    right3, right1, matches, findable, pairs, wrong, unrelated = totals
    kept = max(matches, 1)
    return Score(
        right3 / kept, right1 / kept, right3 / max(findable, 1), matches / max(pairs, 1), wrong / max(unrelated, 1)
    )
