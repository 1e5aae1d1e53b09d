"""The pre-norm transformer block that DINOv2 and the match decoder share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for query, key and value, `[B,N,C] -> [B,N,C]`."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        # The factor of the products of queries and keys; 1 where `qkv` has it in its weights (`deployed`).
        self.scale = (dim // heads) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        """`[B,N,C] -> [B,N,C]`."""
        batch, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        return self.proj(self.attended(query, key, value).transpose(1, 2).reshape(batch, tokens, channels))

    def attended(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The mean of the values, weighted by how much their keys are like the queries; all `[B,heads,N,D]`."""
        if self.scale == 1.0:
            # Written out, because exporters write two multiplications into the operator, each a pass of its own.
            return (query @ key.transpose(2, 3)).softmax(dim=3) @ value
        return F.scaled_dot_product_attention(query, key, value, scale=self.scale)


class MLP(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[B,N,C] -> [B,N,C]`."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A factor per channel (Touvron et al., ICCV 2021)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """`[B,N,C] -> [B,N,C]`."""
        return x * self.gamma


class Block(nn.Module):
    """`x + ls1(attn(norm1(x)))`, then `x + ls2(mlp(norm2(x)))`; without layer scale the factors are 1."""

    def __init__(
        self, dim: int, heads: int, mlp_ratio: int, norm_eps: float, qkv_bias: bool, layer_scale: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = MLP(dim, mlp_ratio * dim)
        self.ls1: nn.Module = LayerScale(dim) if layer_scale else nn.Identity()
        self.ls2: nn.Module = LayerScale(dim) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`[B,N,C] -> [B,N,C]`."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))
