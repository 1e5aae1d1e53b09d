"""LoFTR's encoder layer with linear or full attention, and their stack, as in `matchrt.models.loftr.attention`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from matchrt.models.loftr.config import AttentionKind, TransformerConfig

# As in the torch network, which gives the reasons.
MASKED = -1e9
SMALLEST = 1e-4


class LinearAttention(nnx.Module):
    """Linear attention with the feature map elu(x)+1 (Katharopoulos et al., ICML 2020)."""

    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        query_mask: jax.Array | None = None,
        source_mask: jax.Array | None = None,
    ) -> jax.Array:
        """Query `[B,L,h,d]`, key and value `[B,S,h,d]`, masks bool `[B,L]` and `[B,S]` -> `[B,L,h,d]`."""
        q, k = nnx.elu(query) + 1.0, nnx.elu(key) + 1.0
        if query_mask is not None:
            q = q * query_mask[:, :, None, None].astype(q.dtype)
        if source_mask is not None:
            k = k * source_mask[:, :, None, None].astype(k.dtype)  # this takes the values of padding out too
        # Means over the source instead of sums, as in the torch network: nothing grows with its length.
        k = k / value.shape[1]
        normaliser = jnp.einsum("blhd,bhd->blh", q, k.sum(axis=1))
        context = jnp.einsum("bshd,bshv->bhdv", k, value)
        message = jnp.einsum("blhd,bhdv->blhv", q, context)
        return message / jnp.maximum(normaliser, SMALLEST)[..., None]


class FullAttention(nnx.Module):
    """Softmax attention (Vaswani et al., NeurIPS 2017)."""

    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        query_mask: jax.Array | None = None,
        source_mask: jax.Array | None = None,
    ) -> jax.Array:
        """Shapes as in `LinearAttention`. Masked queries give arbitrary finite values, which are never read."""
        del query_mask
        scores = jnp.einsum("blhd,bshd->bhls", query, key) / query.shape[3] ** 0.5
        if source_mask is not None:
            scores = jnp.where(source_mask[:, None, None, :], scores, MASKED)
        return jnp.einsum("bhls,bshd->blhd", nnx.softmax(scores, axis=3), value)


class LoFTREncoderLayer(nnx.Module):
    """One layer: `m = norm1(merge(attention(x, source)))`, `x + norm2(mlp([x, m]))`; no biases but the norms'."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        attention: AttentionKind,
        norm_eps: float,
        *,
        rngs: nnx.Rngs,
        dtype: Any = None,
    ) -> None:
        def linear(inputs: int, outputs: int) -> Any:
            return nnx.Linear(inputs, outputs, use_bias=False, dtype=dtype, rngs=rngs)

        def norm() -> Any:
            # The fast variance, E[x^2] - E[x]^2, loses digits. Torch computes the mean of squared differences.
            return nnx.LayerNorm(d_model, epsilon=norm_eps, use_fast_variance=False, dtype=dtype, rngs=rngs)

        self.n_heads = n_heads
        self.attention = LinearAttention() if attention == "linear" else FullAttention()
        self.q_proj = linear(d_model, d_model)
        self.k_proj = linear(d_model, d_model)
        self.v_proj = linear(d_model, d_model)
        self.merge = linear(d_model, d_model)
        # The indices are those of torch's Sequential, in which 1 is the ReLU.
        self.mlp = nnx.List([linear(2 * d_model, 2 * d_model), ReLU(), linear(2 * d_model, d_model)])
        self.norm1 = norm()
        self.norm2 = norm()

    def _heads(self, x: jax.Array) -> jax.Array:
        batch, length, channels = x.shape
        return x.reshape(batch, length, self.n_heads, channels // self.n_heads)

    def __call__(
        self,
        x: jax.Array,
        source: jax.Array,
        x_mask: jax.Array | None = None,
        source_mask: jax.Array | None = None,
    ) -> jax.Array:
        """x `[B,L,C]`, source `[B,S,C]`, masks bool `[B,L]`, `[B,S]` -> `[B,L,C]`."""
        query = self._heads(self.q_proj(x))
        key, value = self._heads(self.k_proj(source)), self._heads(self.v_proj(source))
        message = self.attention(query, key, value, x_mask, source_mask).reshape(x.shape)
        message = self.norm1(self.merge(message))
        y = jnp.concatenate([x, message], axis=2)
        for step in self.mlp:
            y = step(y)
        return x + self.norm2(y)


class ReLU(nnx.Module):
    """An activation as a module, so that the modules after it in a list keep torch's indices."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[...] -> [...]`."""
        return nnx.relu(x)


class LocalFeatureTransformer(nnx.Module):
    """Self and cross layers in turn. One layer serves both images; in a cross layer image 1 sees the new image 0."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs, dtype: Any = None) -> None:
        self.kinds = config.layers
        self.layers = nnx.List(
            [
                LoFTREncoderLayer(
                    config.d_model, config.n_heads, config.attention, config.norm_eps, rngs=rngs, dtype=dtype
                )
                for _ in config.layers
            ]
        )

    def __call__(
        self, x0: jax.Array, x1: jax.Array, mask0: jax.Array | None = None, mask1: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """x0 `[B,L,C]`, x1 `[B,S,C]`, masks bool `[B,L]`, `[B,S]` -> the same shapes."""
        for index in range(len(self.kinds)):
            x0, x1 = self.step(index, x0, x1, mask0, mask1)
        return x0, x1

    def step(
        self,
        index: int,
        x0: jax.Array,
        x1: jax.Array,
        mask0: jax.Array | None = None,
        mask1: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """One layer on both images; shapes as in a call."""
        layer = self.layers[index]
        if self.kinds[index] == "self":
            return _self_attention(layer, x0, x1, mask0, mask1)
        x0 = layer(x0, x1, mask0, mask1)
        return x0, layer(x1, x0, mask1, mask0)


def _self_attention(
    layer: LoFTREncoderLayer, x0: jax.Array, x1: jax.Array, mask0: jax.Array | None, mask1: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Each image attends to itself. Images of equal size are one batch."""
    if x0.shape != x1.shape:
        return layer(x0, x0, mask0, mask0), layer(x1, x1, mask1, mask1)
    both = jnp.concatenate([x0, x1])
    mask = jnp.concatenate([mask0, mask1]) if mask0 is not None and mask1 is not None else None
    first, second = jnp.split(layer(both, both, mask, mask), 2)
    return first, second
