"""Sub-pixel refinement of coarse matches in small windows, as in `matchrt.models.loftr.fine_refinement`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from matchrt.models.loftr.config import TransformerConfig


def gather_windows(features: jax.Array, cells: jax.Array, grid_width: int, stride: int, window: int) -> jax.Array:
    """Windows of `features [B,H,W,C]` around the cells `[B,K]` -> `[B,K,window*window,C]`, zeros outside.

    The window of a cell at (row, column) is centred on pixel (row*stride, column*stride).
    """
    radius = window // 2
    batch, _, _, channels = features.shape
    padded = jnp.pad(features, ((0, 0), (radius, radius), (radius, radius), (0, 0)))
    width = padded.shape[2]
    row, column = jnp.divmod(cells, grid_width)
    corner = row * (stride * width) + column * stride
    offset = np.arange(window)
    offsets = (offset[:, None] * width + offset[None, :]).reshape(-1)
    index = (corner[:, :, None] + offsets).reshape(batch, -1, 1)
    picked = jnp.take_along_axis(padded.reshape(batch, -1, channels), index, axis=1)
    return picked.reshape(batch, cells.shape[1], window * window, channels)


class FinePreprocess(nnx.Module):
    """Mixes the coarse feature of a window's cell into each of its pixels."""

    def __init__(self, coarse_dim: int, fine_dim: int, *, rngs: nnx.Rngs, dtype: Any = None) -> None:
        self.down_proj = nnx.Linear(coarse_dim, fine_dim, dtype=dtype, rngs=rngs)
        self.merge_feat = nnx.Linear(2 * fine_dim, fine_dim, dtype=dtype, rngs=rngs)

    def __call__(self, windows: jax.Array, tokens: jax.Array, cells: jax.Array) -> jax.Array:
        """windows `[B,K,W*W,Cf]`, tokens `[B,L,Cc]`, cells `[B,K]` -> `[B*K,W*W,Cf]`."""
        picked = jnp.take_along_axis(tokens, cells[:, :, None], axis=1)
        context = jnp.broadcast_to(self.down_proj(picked)[:, :, None], windows.shape)
        mixed = self.merge_feat(jnp.concatenate([windows, context], axis=3))
        return mixed.reshape(-1, *mixed.shape[2:])


class FineRefinement(nnx.Module):
    """Fine matching: correlation of image 0's centre pixel with image 1's window, and its expectation."""

    def __init__(self, config: TransformerConfig, window: int) -> None:
        if window % 2 == 0:
            raise ValueError(f"fine window {window} has no centre pixel; use an odd size")
        self.window = window
        self.scale = config.d_model**0.5

    def __call__(self, x0: jax.Array, x1: jax.Array) -> tuple[jax.Array, jax.Array]:
        """x0, x1 `[N,W*W,C]` -> expectation `[N,2]` (x, y) in -1..1 of the window, standard deviation `[N]`."""
        centre = x0[:, self.window**2 // 2]
        heat = jnp.einsum("nwc,nc->nw", x1, centre, preferred_element_type=jnp.float32) / self.scale
        heat = nnx.softmax(heat, axis=1)
        line = np.linspace(-1.0, 1.0, self.window, dtype=np.float32)
        grid = jnp.asarray(np.stack([np.tile(line, self.window), np.repeat(line, self.window)], axis=1))
        # Sums, not products: a GPU may round the factors of a product to ten bits.
        expectation = (heat[:, :, None] * grid).sum(axis=1)
        # This is around the expectation. The difference of the two mean squares is equal, but has few digits left.
        variance = (heat[:, :, None] * (grid - expectation[:, None]) ** 2).sum(axis=1)
        return expectation, jnp.sqrt(jnp.maximum(variance, 1e-10)).sum(axis=1)
