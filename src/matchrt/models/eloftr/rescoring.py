"""Scores of matches from how well the matches around them agree, and places from where those point: eloftr-lite's.

A coarse confidence says how much two cells look alike. It does not see whether the cell's neighbours went the same way,
which is most of what tells right matches from wrong ones: where 97 % of the kept matches are right, nearly three times
as many right ones are kept (docs/models/eloftr-lite.md). Around every match an affine map is fitted to the other
matches by weighted least squares, over windows of 7 x 7 and 13 x 13 cells. How far the match lies from that map, and
how much agreeing confidence lies around it, decide its score: a small perceptron turns them into the probability that
the match is within 3 pixels. A last map, of the scores in 5 x 5 cells, then draws each match's point of image 1 towards
where its neighbours point, by 1.4 pixels at most: the noise of single places averages out.

The fit is repeated with weights that fall with each match's own distance, so wrong matches lose their say (iteratively
reweighted least squares with Cauchy weights; Holland and Welsch 1977). Everything is float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matchrt.models.eloftr.affine_fits import Field, fit
from matchrt.models.parts.coarse_matching import Grid

RADII = (3, 6)  # cells of a window to each side of its middle
# Confidence from which on a pair of cells is a candidate. The score decides whether it is a match.
CANDIDATE = 0.02
# Candidates fade in over so much of that, so that rounding, which decides what is just above it, changes no score.
FADE = 0.05
# Squared distances in pixels at which a match has half its weight, in the second and the third fit.
HALF_WEIGHTS = (64.0, 16.0)
ODDS = 1e-3  # confidences nearer to 0 or 1 than this are taken as this
EVIDENCE = 10  # values for each match
_FURTHEST = 1e6  # squared pixels
# Places: the window, the share of the way to the map, the squared distance in pixels at which that is halved, and the
# score around a match at which it is halved too. Larger windows and shares make homographies better still, and poses
# worse: what is near in the image need not lie in one plane.
PLACE_RADIUS, PLACE_SHARE, PLACE_DISTANCE, PLACE_MASS = 2, 0.7, 16.0, 0.5


def evidence(field: Field) -> Tensor:
    """What the score of each match depends on: `[B,10,h,w]`; zero for empty cells.

    The logarithm of the odds of the confidence, five distances from the fits, and the confidence around the match: all
    of it in the large window, what the first fit leaves in the small one, and what agrees, in both.
    """
    confidence = field.confidence
    first = fit(field, confidence, RADII[1:])
    second = fit(field, confidence / (1 + first.distance / HALF_WEIGHTS[0]), RADII)
    nearer = second.distance.amin(dim=1, keepdim=True)
    third = fit(field, confidence / (1 + nearer / HALF_WEIGHTS[1]), RADII)
    limited = confidence.clamp(ODDS, 1 - ODDS)
    odds = limited.log() - (1 - limited).log()
    far = torch.cat([each.distance for each in (first, second, third)], dim=1).clamp(max=_FURTHEST).sqrt()
    near = torch.cat([first.mass, second.mass[:, :1], third.mass], dim=1)
    found = torch.cat([odds, (1 + torch.cat([far, near], dim=1)).log()], dim=1)
    return torch.where(confidence > 0, found, torch.zeros_like(found))


def in_slots(values: Tensor, cells0: Tensor) -> Tensor:
    """Values of cells `[B,C,h,w]` for the slots of cells `[B,K]`: `[B,K,C]`."""
    return values.flatten(2).gather(2, cells0[:, None, :].expand(-1, values.shape[1], -1)).transpose(1, 2)


def presence(confidence: Tensor) -> Tensor:
    """How much each candidate counts, `[B,K]` in 0..1: less only near the least confidence."""
    return ((confidence / CANDIDATE - 1) / FADE).clamp(0, 1)


def placed(field: Field, keypoints1: Tensor, scores: Tensor, cells0: Tensor) -> Tensor:
    """keypoints1 `[B,K,2]`, drawn towards where the matches around put them. scores: `[B,K]`.

    A match that is far from the map of its neighbours is wrong, or at an edge in depth, and stays where it is.
    """
    near = fit(field, field.on_grid(scores, cells0), (PLACE_RADIUS,))
    share = PLACE_SHARE / (1 + near.distance / PLACE_DISTANCE) * near.mass / (near.mass + PLACE_MASS)
    moved = keypoints1 - in_slots(share * near.residual[:, 0], cells0)
    return torch.where(scores[:, :, None] > 0, moved, keypoints1)


class Rescoring(nn.Module):
    """A perceptron from `evidence` to scores. Its weights are made by `tools.train_lite.rescoring`."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(EVIDENCE, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        )

    def scored(self, found: Tensor, present: Tensor) -> Tensor:
        """Scores `[B,K]` in 0..1 from the evidence of slots `[B,K,10]` and their `presence` `[B,K]`."""
        return torch.sigmoid(self.layers(found)[:, :, 0]) * present

    def forward(
        self, keypoints0: Tensor, keypoints1: Tensor, confidence: Tensor, cells0: Tensor, grid0: Grid
    ) -> tuple[Tensor, Tensor]:
        """The new keypoints1 `[B,K,2]`, and scores `[B,K]` in 0..1, 0 for empty slots.

        Arguments as in `Field.of`. A cell has one match at most.
        """
        present = presence(confidence)
        field = Field.of(keypoints0, keypoints1, confidence * present, cells0, grid0)
        scores = self.scored(in_slots(evidence(field), cells0), present)
        return placed(field, keypoints1, scores, cells0), scores
