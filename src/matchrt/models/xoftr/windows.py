"""Attention within the windows of a match: within each image's window, and between the two (section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WindowMLP(nn.Module):
    """Two linear layers with a GELU between them, twice as wide as the result."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * dim, 2 * dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, message: Tensor) -> Tensor:
        """x and message `[N,L,C]` -> `[N,L,C]`."""
        out: Tensor = self.fc2(self.act(self.fc1(torch.cat([x, message], dim=2))))
        return out


class WindowPosition(nn.Module):
    """Adds to each pixel of a window what an MLP makes of its place."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pos_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, dim, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """`[N,W*W,C]`, W odd; the place is (row, column), -1 to 1 from edge to edge."""
        side = round(x.shape[1] ** 0.5)
        line = torch.linspace(-1.0, 1.0, side, device=x.device)
        places = torch.stack([line.repeat_interleave(side), line.repeat(side)], dim=1)
        out: Tensor = x + self.pos_mlp(places)[None].to(x.dtype)
        return out


class _Heads(nn.Module):
    """Softmax attention of several heads, which share the channels."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5

    def split(self, x: Tensor) -> Tensor:
        """`[N,L,C]` -> `[N,h,L,C/h]`."""
        count, length, channels = x.shape
        return x.reshape(count, length, self.heads, channels // self.heads).transpose(1, 2)

    @staticmethod
    def join(x: Tensor) -> Tensor:
        """`[N,h,L,d]` -> `[N,L,h*d]`."""
        return x.transpose(1, 2).flatten(2)


class SelfAttention(_Heads):
    """Each pixel attends to all tokens of its window."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.kv_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.merge = nn.Linear(dim, dim)

    def forward(self, x: Tensor, pixels: int) -> Tensor:
        """Tokens `[N,L,C]`, the first `pixels` of which ask -> `[N,pixels,C]`."""
        key, value = (self.split(part) for part in self.kv_proj(x).chunk(2, dim=2))
        scores = (self.split(self.q_proj(x[:, :pixels])) * self.scale) @ key.transpose(2, 3)
        out: Tensor = self.merge(self.join(scores.softmax(dim=3) @ value))
        return out


class CrossAttention(_Heads):
    """Two windows attend to each other by one similarity, which each side normalises for itself."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        # No operation reads it: the authors' code makes it, and the checkpoints have it.
        self.temperature = nn.Parameter(torch.zeros(1))
        self.qk_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.merge = nn.Linear(dim, dim, bias=False)

    def forward(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        """x0 and x1 `[N,L,C]` -> the messages `[N,L,C]` to either."""
        first, second = (self.split(self.qk_proj(x)) * self.scale**0.5 for x in (x0, x1))
        value0, value1 = (self.split(self.v_proj(x)) for x in (x0, x1))
        scores = first @ second.transpose(2, 3)
        message0 = scores.softmax(dim=3) @ value1
        message1 = scores.transpose(2, 3).softmax(dim=3) @ value0
        return self.merge(self.join(message0)), self.merge(self.join(message1))


class WindowSelfAttention(nn.Module):
    """A layer of self-attention over a window and the tokens of the coarser level: `x + gamma * norm1(mlp(x, m))`.

    pre_position: whether the coarser level's tokens are a window too, which get positions of their own.
    """

    def __init__(self, dim: int, heads: int, pre_position: bool) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.mlp = WindowMLP(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim, heads)
        self.pos_embed = WindowPosition(dim)
        self.pos_embed_pre = WindowPosition(dim) if pre_position else nn.Identity()

    def forward(self, x: Tensor, coarser: Tensor) -> Tensor:
        """x `[N,W*W,C]` and coarser `[N,P,C]` -> `[N,W*W,C]`.

        The authors' code computes new tokens of the coarser level too, and throws them away.
        """
        x = self.pos_embed(x)
        tokens = self.norm2(torch.cat([x, self.pos_embed_pre(coarser)], dim=1))
        out: Tensor = x + self.gamma * self.norm1(self.mlp(x, self.attn(tokens, x.shape[1])))
        return out


class WindowCrossAttention(nn.Module):
    """A layer of cross-attention between the windows of both images: `x + gamma * norm2(mlp(x, m))`."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = WindowMLP(dim)
        self.cross_attn = CrossAttention(dim, heads)

    def forward(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        """x0 and x1 `[N,L,C]` -> the same shapes."""
        messages = self.cross_attn(self.norm1(x0), self.norm1(x1))
        first, second = (x + self.gamma * self.norm2(self.mlp(x, m)) for x, m in zip((x0, x1), messages, strict=True))
        return first, second
