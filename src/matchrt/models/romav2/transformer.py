"""The pre-norm transformer block of DINOv3 and of the multi-view matcher."""

from __future__ import annotations

from torch import Tensor, nn

from matchrt.models.roma.transformer import MLP, LayerScale
from matchrt.models.roma.transformer import Attention as RoMaAttention
from matchrt.models.romav2.rotary import Rotation


class Attention(RoMaAttention):
    """RoMa's attention, with a rotation of queries and keys."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads, qkv_bias=True)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """`[B,N,C] -> [B,N,C]`; rotation of the N tokens, None for none."""
        batch, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        if rotation is not None:
            query, key = rotation(query), rotation(key)
        return self.proj(self.attended(query, key, value).transpose(1, 2).reshape(batch, tokens, channels))


class Block(nn.Module):
    """`x + ls1(attn(norm1(x)))`, then `x + ls2(mlp(norm2(x)))`; without layer scale the factors are 1."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, norm_eps: float, layer_scale: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = MLP(dim, mlp_ratio * dim)
        self.ls1: nn.Module = LayerScale(dim) if layer_scale else nn.Identity()
        self.ls2: nn.Module = LayerScale(dim) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """`[B,N,C] -> [B,N,C]`; rotation of the N tokens, None for none."""
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        return x + self.ls2(self.mlp(self.norm2(x)))
