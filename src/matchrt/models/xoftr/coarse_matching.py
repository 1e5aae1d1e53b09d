"""XoFTR's coarse matching: each image chooses for itself, so that a cell may have several matches (section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from matchrt.models.parts.coarse_matching import CoarseMatches, Grid, comparable
from matchrt.models.parts.config import CoarseMatchConfig


@dataclass(frozen=True)
class Choice:
    """What the cells of one image choose in the other.

    best: int64 `[B,L]`, the most similar cell of the other image.
    probability: float `[B,L]` in 0..1, its softmax over the cells of the other image.
    """

    best: Tensor
    probability: Tensor


class CoarseChoices(nn.Module):
    """Projects the features, and takes the softmax of their similarity over either image."""

    def __init__(self, d_model: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.final_proj = nn.Linear(d_model, d_model)

    def forward(
        self, x0: Tensor, x1: Tensor, mask0: Tensor | None = None, mask1: Tensor | None = None
    ) -> tuple[Choice, Choice]:
        """The choices of the cells x0 `[B,L,C]` and of the cells x1 `[B,S,C]`.

        mask0, mask1: bool `[B,L]`, `[B,S]`, False for padding; None if there is none. Padding chooses arbitrary cells.
        """
        first, second = comparable(self.final_proj(x0), self.final_proj(x1), self.temperature, mask0, mask1)
        # Two products instead of a transpose, so that every reduction runs along the last axis: see `CoarseScores`.
        return _choice(first @ second.transpose(1, 2)), _choice(second @ first.transpose(1, 2))


def _choice(scores: Tensor) -> Choice:
    most, best = scores.max(dim=2)
    return Choice(best, 1.0 / (scores - most[..., None]).exp().sum(dim=2))


class EitherSelection(nn.Module):
    """Takes the pairs of cells that either side has chosen. It has no weights."""

    def forward(
        self,
        choices: tuple[Choice, Choice],
        grid0: Grid,
        grid1: Grid,
        config: CoarseMatchConfig,
        max_matches: int,
    ) -> CoarseMatches:
        """The `max_matches` most probable pairs within threshold and border.

        The candidates are a pair for each cell of image 0, and then one for each cell of image 1. A pair that both have
        chosen is taken once, with the larger of its probabilities. With `config.mutual`, only these pairs are taken.
        """
        from0, from1 = choices
        (batch, cells0), cells1 = from0.best.shape, from1.best.shape[1]
        device = from0.best.device
        own0, own1 = (torch.arange(count, device=device).expand(batch, -1) for count in (cells0, cells1))
        mutual0 = from1.best.gather(1, from0.best) == own0
        mutual1 = from0.best.gather(1, from1.best) == own1
        other = torch.maximum(from0.probability, from1.probability.gather(1, from0.best))
        score0 = torch.where(mutual0, other, 0.0 if config.mutual else from0.probability)
        alone1 = torch.zeros_like(mutual1) if config.mutual else ~mutual1
        score1 = torch.where(alone1, from1.probability, 0.0)
        score = torch.cat([score0, score1], dim=1)
        index0, index1 = torch.cat([own0, from1.best], dim=1), torch.cat([from0.best, own1], dim=1)
        inside0 = grid0.interior(config.border, device).expand(batch, -1).gather(1, index0)
        inside1 = grid1.interior(config.border, device).expand(batch, -1).gather(1, index1)
        score = torch.where((score > config.threshold) & inside0 & inside1, score, 0.0)
        # Zero slots after the candidates keep top-K valid if there are fewer than K.
        score = torch.cat([score, score.new_zeros(batch, max_matches)], dim=1)
        scores, chosen = score.topk(max_matches, dim=1)
        chosen = chosen.clamp(max=cells0 + cells1 - 1)
        return CoarseMatches(index0.gather(1, chosen), index1.gather(1, chosen), scores)
