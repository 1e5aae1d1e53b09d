"""LoFTR's losses (Sun et al., CVPR 2021, section 3.6): focal loss on the confidence, weighted l2 on the refinement."""

from __future__ import annotations

import torch
from torch import Tensor

from tools.train_lite.pairs import Truth

ALPHA = 0.25
GAMMA = 2.0
# Largest probability inside log(1 - p): a wrong match of certainty 1 still gets a finite gradient.
CEILING = 1.0 - 1e-4


def _negative(confidence: Tensor) -> Tensor:
    return -(1 - ALPHA) * confidence**GAMMA * torch.log1p(-CEILING * confidence)


def coarse_loss(similarity: Tensor, truth: Truth) -> Tensor:
    """Focal loss of the dual-softmax confidence of `similarity [B,L,S]`, float32.

    Positives are averaged over the matches, negatives over the cells of both images, so that unrelated pairs weigh as
    much as others. A cell's true place that is not a mutual match (many cells fall on one where the scale changes) is
    neither.
    """
    # Padding is -1e9, where float32 has no room for the logarithm of a sum; -1e4 is as impossible.
    similarity = similarity.float().clamp(min=-1e4)
    rows = similarity.logsumexp(dim=2)
    columns = similarity.logsumexp(dim=1)

    def log_confidence(cell0: Tensor | None, cell1: Tensor | None) -> Tensor:
        if cell0 is None and cell1 is not None:
            picked = similarity.gather(2, cell1[:, :, None])[:, :, 0]
            return 2 * picked - rows - columns.gather(1, cell1)
        assert cell0 is not None
        picked = similarity.gather(1, cell0[:, None, :])[:, 0]
        return 2 * picked - rows.gather(1, cell0) - columns

    from0 = log_confidence(None, truth.nearest0).clamp(max=0.0)
    from1 = log_confidence(truth.nearest1, None).clamp(max=0.0)
    confidence0, confidence1 = from0.exp(), from1.exp()
    positive = truth.positive.float()
    hit = (-ALPHA * (1 - confidence0) ** GAMMA * from0.clamp(min=-30.0) * positive).sum() / positive.sum().clamp(
        min=1.0
    )
    dense = (2 * similarity - rows[:, :, None] - columns[:, None, :]).clamp(max=0.0).exp()
    wrong = _negative(dense).sum()
    # True places leave the sum; those seen from both sides left it twice, once too often.
    wrong = wrong - (_negative(confidence0) * truth.known0).sum() - (_negative(confidence1) * truth.known1).sum()
    wrong = wrong + (_negative(confidence0) * positive).sum()
    cells = 0.5 * (truth.known0.numel() + truth.known1.numel())
    return hit + wrong / cells


def sample_positives(truth: Truth, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` cells of view 0 per pair, matches first in random order -> index `[B,count]`, bool: is a match."""
    draw = torch.rand(truth.positive.shape, generator=generator, device=truth.positive.device)
    score, index = (draw * truth.positive).topk(count, dim=1)
    return index, score > 0


def fine_loss(expectation: Tensor, deviation: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """l2 distance to `target [B,K,2]` (units of the window's radius), sharper predictions weigh more."""
    inside = valid & (target.abs().amax(dim=2) <= 1.0)
    certainty = 1.0 / deviation.float().detach().clamp(min=1e-4)
    weight = certainty * inside
    weight = weight / (weight.sum() / inside.sum().clamp(min=1) + 1e-9)
    distance = (expectation.float() - target).square().sum(dim=2)
    return (distance * weight).sum() / inside.sum().clamp(min=1)
