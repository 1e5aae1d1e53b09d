"""Precision and recall on held-out tiles, matched as at inference: threshold, border, mutual nearest, refinement."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from matchrt.models.loftr.network import LoFTR
from matchrt.models.loftr.resnet_fpn import run_backbone
from matchrt.models.parts.coarse_matching import Grid, fast_dual_softmax, select_matches
from matchrt.models.parts.config import CoarseMatchConfig
from tools.train_lite.pairs import STRIDE, Pairs, Recipe, Shape, make_pairs
from tools.train_lite.tiles import Pool

BORDER = 2
SLOTS = 2400


@dataclass(frozen=True)
class Score:
    """Means over pairs; precision at N pixels of the matches above the threshold, recall of the true matches."""

    precision3: float
    precision1: float
    recall3: float
    matches: float

    def row(self) -> dict[str, float]:
        """As CSV columns."""
        return asdict(self)


@torch.no_grad()
def score_pairs(net: LoFTR, pairs: Pairs, threshold: float, amp: bool) -> tuple[float, float, float, float, int]:
    """Sums over a batch: right within 3 px, within 1 px, matches, findable matches; and the number of pairs."""
    truth = pairs.truth
    with torch.autocast(pairs.image0.device.type, dtype=torch.bfloat16, enabled=amp):
        (coarse0, fine0), (coarse1, fine1) = run_backbone(net.backbone, pairs.image0, pairs.image1)
        tokens0, tokens1 = net.encode_coarse(coarse0, coarse1)
    assert fine0 is not None and fine1 is not None
    scores = net.similarity(tokens0.float(), tokens1.float())
    confidence = fast_dual_softmax(scores, scores.transpose(1, 2))
    grid0, grid1 = Grid(*coarse0.shape[2:]), Grid(*coarse1.shape[2:])
    found = select_matches(confidence, grid0, grid1, CoarseMatchConfig(threshold=threshold, border=BORDER), SLOTS)
    del confidence
    expectation, _ = net.refine(
        (fine0.float(), fine1.float()),
        (tokens0.float(), tokens1.float()),
        (found.index0, found.index1),
        (grid0.width, grid1.width),
    )

    def pixels(cells: torch.Tensor) -> torch.Tensor:
        return STRIDE * torch.stack([cells % grid1.width, cells // grid1.width], dim=2).float()

    point = pixels(found.index1) + 4.0 * expectation
    true_cell = truth.nearest0.gather(1, found.index0)
    true_point = pixels(true_cell) + truth.offset.gather(1, found.index0[:, :, None].expand(-1, -1, 2))
    error = (point - true_point).norm(dim=2)
    error = torch.where(truth.known0.gather(1, found.index0), error, torch.full_like(error, 1e4))
    real = found.scores > 0
    border0 = grid0.interior(BORDER, error.device)
    border1 = grid1.interior(BORDER, error.device).expand(len(error), -1).gather(1, truth.nearest0)
    findable = truth.positive & border0 & border1
    return (
        float((real & (error < 3)).sum()),
        float((real & (error < 1)).sum()),
        float(real.sum()),
        float(findable.sum()),
        len(error),
    )


def validate(
    net: LoFTR, pool: Pool, shape: Shape, recipe: Recipe, batches: int, amp: bool, threshold: float = 0.2
) -> Score:
    """Scores the network on the same pairs every time."""
    net.eval()
    generator = torch.Generator(pool.table.device)
    totals = [0.0] * 5
    for batch in range(batches):
        generator.manual_seed(987_654 + batch)
        sums = score_pairs(net, make_pairs(pool, generator, shape, recipe), threshold, amp)
        totals = [total + part for total, part in zip(totals, sums, strict=True)]
    right3, right1, matches, findable, pairs = totals
    return Score(right3 / max(matches, 1), right1 / max(matches, 1), right3 / max(findable, 1), matches / pairs)
