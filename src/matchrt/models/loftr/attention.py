"""LoFTR's encoder layer with linear or full attention, and the stack of them that both images share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.loftr.config import AttentionKind, TransformerConfig
from matchrt.models.parts.halves import halves
from matchrt.models.parts.masks import MASKED

# Keeps the message of a masked query, 0 / 0, at zero. The paper's code adds 1e-6 to a sum over thousands of positions.
# That changes no other result beyond rounding, but half precision cannot hold its reciprocal.
SMALLEST = 1e-4


def linear_attention(
    query: Tensor, key: Tensor, value: Tensor, query_mask: Tensor | None, source_mask: Tensor | None
) -> Tensor:
    """Linear attention with the feature map elu(x)+1 (Katharopoulos et al., ICML 2020).

    query `[B,h,L,d]`, key and value `[B,h,S,d]`, masks bool `[B,L]` and `[B,S]` -> `[B,h,L,d]`.
    """
    q, k = F.elu(query) + 1.0, F.elu(key) + 1.0
    if query_mask is not None:
        q = q * query_mask[:, None, :, None].to(q.dtype)
    if source_mask is not None:
        k = k * source_mask[:, None, :, None].to(k.dtype)  # this takes the values of padding out too
    # Means over the source instead of sums: nothing grows with its length, so half precision can hold everything.
    k = k / value.shape[2]
    normaliser = (q @ k.sum(dim=2)[..., None]).clamp(min=SMALLEST)
    return (q @ (k.transpose(2, 3) @ value)) / normaliser


def window_attention(query: Tensor, key: Tensor, value: Tensor, n_heads: int) -> Tensor:
    """`linear_attention` within thousands of small windows: query, key, value `[N,S,C]` -> `[N,S,C]`, no masks.

    Products are of all channels instead of each head's own, and entries that belong to two heads are set to zero. This
    is more arithmetic, but in matrices that fill a tensor core. Matrices of single heads are 16 x 25, and take GPUs
    five times as long.
    """
    head = torch.arange(query.shape[2], device=query.device) // (query.shape[2] // n_heads)
    same = (head[:, None] == head[None, :]).to(query.dtype)
    q, k = F.elu(query) + 1.0, (F.elu(key) + 1.0) / value.shape[1]
    normaliser = ((q * k.sum(dim=1, keepdim=True)) @ same).clamp(min=SMALLEST)
    return (q @ ((k.transpose(1, 2) @ value) * same)) / normaliser


def full_attention(
    query: Tensor, key: Tensor, value: Tensor, query_mask: Tensor | None, source_mask: Tensor | None
) -> Tensor:
    """Softmax attention; shapes as `linear_attention`. Masked queries give arbitrary finite values."""
    del query_mask  # the result of a padded query is never read
    scores = (query @ key.transpose(2, 3)) / query.shape[3] ** 0.5
    if source_mask is not None:
        scores = scores.masked_fill(~source_mask[:, None, None, :], MASKED)
    return scores.softmax(dim=3) @ value


class LoFTREncoderLayer(nn.Module):
    """One layer: `m = norm1(merge(attention(x, source)))`, `x + norm2(mlp([x, m]))`; no biases but the norms'."""

    def __init__(self, d_model: int, n_heads: int, attention: AttentionKind, norm_eps: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention = attention
        self.windows = False  # whether its inputs are many small windows, for `window_attention`
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model, bias=False)
        self.merge = nn.Linear(d_model, d_model, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(2 * d_model, 2 * d_model, bias=False), nn.ReLU(), nn.Linear(2 * d_model, d_model, bias=False)
        )
        self.norm1 = nn.LayerNorm(d_model, eps=norm_eps)
        self.norm2 = nn.LayerNorm(d_model, eps=norm_eps)

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, channels = x.shape
        return x.view(batch, length, self.n_heads, channels // self.n_heads).transpose(1, 2)

    def _project(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value; linear layers of the same input as one product."""
        q, k, v = self.q_proj.weight, self.k_proj.weight, self.v_proj.weight
        if x is source:
            query, key, value = F.linear(x, torch.cat([q, k, v])).chunk(3, dim=2)
        else:
            query, (key, value) = self.q_proj(x), F.linear(source, torch.cat([k, v])).chunk(2, dim=2)
        return query, key, value

    def forward(self, x: Tensor, source: Tensor, x_mask: Tensor | None, source_mask: Tensor | None) -> Tensor:
        """x `[B,L,C]`, source `[B,S,C]`, masks bool `[B,L]`, `[B,S]` -> `[B,L,C]`."""
        message = self.norm1(self.merge(self._attend(x, source, x_mask, source_mask)))
        return x + self.norm2(self.mlp(torch.cat([x, message], dim=2)))

    def _attend(self, x: Tensor, source: Tensor, x_mask: Tensor | None, source_mask: Tensor | None) -> Tensor:
        projected = self._project(x, source)
        if self.windows and self.attention == "linear":
            return window_attention(*projected, n_heads=self.n_heads)
        attend = linear_attention if self.attention == "linear" else full_attention
        query, key, value = (self._heads(y) for y in projected)
        return attend(query, key, value, x_mask, source_mask).transpose(1, 2).reshape(x.shape)


class LocalFeatureTransformer(nn.Module):
    """Self and cross layers in turn. One layer serves both images; in a cross layer image 1 sees the new image 0."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.kinds = config.layers
        self.layers = nn.ModuleList(
            LoFTREncoderLayer(config.d_model, config.n_heads, config.attention, config.norm_eps) for _ in config.layers
        )

    def forward(
        self, x0: Tensor, x1: Tensor, mask0: Tensor | None = None, mask1: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x0 `[B,L,C]`, x1 `[B,S,C]`, masks bool `[B,L]`, `[B,S]` -> the same shapes."""
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            if kind == "self":
                x0, x1 = _self_attention(layer, x0, x1, mask0, mask1)
            else:
                x0 = layer(x0, x1, mask0, mask1)
                x1 = layer(x1, x0, mask1, mask0)
        return x0, x1


def _self_attention(
    layer: nn.Module, x0: Tensor, x1: Tensor, mask0: Tensor | None, mask1: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Each image attends to itself. Images of equal size are one batch, which GPUs compute faster."""
    if x0.shape != x1.shape:
        return layer(x0, x0, mask0, mask0), layer(x1, x1, mask1, mask1)
    both = torch.cat([x0, x1])
    mask = torch.cat([mask0, mask1]) if mask0 is not None and mask1 is not None else None
    first, second = halves(layer(both, both, mask, mask))
    return first, second
