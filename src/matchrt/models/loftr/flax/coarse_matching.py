"""Dual-softmax matching of coarse cells with static shapes, as in `matchrt.models.parts.coarse_matching`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from matchrt.models.loftr.flax.attention import MASKED
from matchrt.models.parts.config import CoarseMatchConfig


class Grid(NamedTuple):
    """A coarse grid: its size in cells, and which cells hold image rather than padding.

    height: rows of cells.
    width: columns of cells.
    valid: int `[B,2]`, rows and columns of cells that hold image; None if the whole grid does.
    """

    height: int
    width: int
    valid: jax.Array | None = None

    def mask(self) -> jax.Array | None:
        """bool `[B, height*width]`, True for image; None if the whole grid is image."""
        return None if self.valid is None else self.interior(0)

    def interior(self, border: int) -> jax.Array:
        """bool `[B or 1, height*width]`: cells at least `border` cells away from the edge of the valid area."""
        valid = jnp.array([[self.height, self.width]]) if self.valid is None else self.valid
        rows, columns = jnp.arange(self.height)[None], jnp.arange(self.width)[None]
        inside_rows = (rows >= border) & (rows < valid[:, :1] - border)
        inside_columns = (columns >= border) & (columns < valid[:, 1:] - border)
        inside = inside_rows[:, :, None] & inside_columns[:, None, :]
        return inside.reshape(inside.shape[0], -1)


class CoarseMatches(NamedTuple):
    """K candidate matches sorted by score; slots after the last match have score 0.

    index0: int32 `[B,K]`, the cell of image 0, row by row.
    index1: int32 `[B,K]`, the cell of image 1, row by row.
    scores: float32 `[B,K]` in 0..1, descending.
    """

    index0: jax.Array
    index1: jax.Array
    scores: jax.Array


class Confidence(NamedTuple):
    """The confidence of all pairs of cells.

    values: float32 `[B,L,S]` in 0..1, the dual softmax.
    best0: int32 `[B,S]`, the best cell of image 0 for each cell of image 1.
    """

    values: jax.Array
    best0: jax.Array


def similarity(
    x0: jax.Array, x1: jax.Array, temperature: float, mask0: jax.Array | None, mask1: jax.Array | None
) -> jax.Array:
    """Scaled dot products `[B,L,S]` in float32 of x0 `[B,L,C]` and x1 `[B,S,C]`; pairs with padding get -1e9."""
    scale = x0.shape[2] ** 0.5
    scores = jnp.einsum("blc,bsc->bls", x0 / scale, x1 / scale, preferred_element_type=jnp.float32) / temperature
    if mask0 is not None and mask1 is not None:
        scores = scores + jnp.where(mask0, 0.0, MASKED)[:, :, None] + jnp.where(mask1, 0.0, MASKED)[:, None, :]
    return scores


def dual_softmax(scores: jax.Array) -> Confidence:
    """Softmax over the rows times softmax over the columns (Rocco et al., NeurIPS 2018) of `[B,L,S]`."""
    # Maxima are subtracted before anything is added, because sums of large scores would lose the decisive digits.
    in_row, in_column = (scores - scores.max(axis=axis, keepdims=True) for axis in (2, 1))
    row_sum, column_sum = (jnp.exp(x).sum(axis=a, keepdims=True) for x, a in ((in_row, 2), (in_column, 1)))
    logits = in_row + in_column
    values = jnp.exp(logits) / row_sum / column_sum
    return Confidence(values, jnp.argmax(logits - jnp.log(row_sum), axis=1))


def select_matches(
    confidence: Confidence, grid0: Grid, grid1: Grid, config: CoarseMatchConfig, max_matches: int
) -> CoarseMatches:
    """The `max_matches` most confident matches that pass threshold, border and mutual test.

    The best column of a row decides, as in the official code: a row whose best cell is in the border has no match.
    """
    score, best1 = confidence.values.max(axis=2), jnp.argmax(confidence.values, axis=2)
    batch, cells0 = score.shape
    keep = score > config.threshold
    if config.mutual:
        back = jnp.take_along_axis(confidence.best0, best1, axis=1)
        keep = keep & (back == jnp.arange(cells0)[None])
    interior1 = grid1.interior(config.border)
    interior1 = jnp.broadcast_to(interior1, (batch, interior1.shape[1]))
    keep = keep & grid0.interior(config.border) & jnp.take_along_axis(interior1, best1, axis=1)
    score = jnp.where(keep, score, 0.0)
    # Zero slots after the cells keep top-K valid for an image with fewer than K cells.
    score = jnp.pad(score, ((0, 0), (0, max_matches)))
    scores, index0 = jax.lax.top_k(score, max_matches)
    index0 = jnp.minimum(index0, cells0 - 1)
    return CoarseMatches(index0, jnp.take_along_axis(best1, index0, axis=1), scores)
