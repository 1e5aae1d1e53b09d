"""LoFTR's encoder layer with linear or full attention, and the stack of them that both images share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.loftr.config import AttentionKind, TransformerConfig
from matchrt.models.parts.halves import halves
from matchrt.models.parts.masks import MASKED

# The smallest normaliser, for a source of padding only. The paper's code adds 1e-6 to a sum over thousands of
# positions. That changes no other result beyond rounding, but half precision cannot hold its reciprocal.
SMALLEST = 1e-4

# Query `[B,L,C]`, key `[B,S,C]` and value `[B,S,C]`.
Projected = tuple[Tensor, Tensor, Tensor]


def feature_map(x: Tensor) -> Tensor:
    """elu(x) + 1, of which all values are positive: the larger of x + 1 and exp(x), which is taken up to zero.

    ONNX Runtime computes these four operators faster than Elu; GPUs compute either in one kernel.
    """
    return torch.maximum(x + 1.0, x.clamp(max=0.0).exp())


def same_head(channels: int, n_heads: int, like: Tensor) -> Tensor:
    """`[channels, channels]`: 1 where two channels belong to one head, else 0."""
    head = torch.arange(channels, device=like.device) // (channels // n_heads)
    return (head[:, None] == head[None]).to(like.dtype)


def own_heads(products: Tensor, n_heads: int) -> Tensor:
    """`[B,C,C]` with zeros where two channels belong to different heads; the mask in the graph is `[h,h]` only."""
    batch, channels, _ = products.shape
    head = channels // n_heads
    same = torch.eye(n_heads, device=products.device, dtype=products.dtype)[None, :, None, :, None]
    return (products.reshape(batch, n_heads, head, n_heads, head) * same).reshape(products.shape)


def normalised(query: Tensor, means: Tensor, n_heads: int, mask: Tensor | None) -> Tensor:
    """Features of queries `[B,L,C]` divided by their products with the keys' means `[B,1,C]`, head by head.

    Dividing the queries instead of the messages makes one kernel on GPUs of what follows the projection of queries.
    """
    batch, length, channels = query.shape
    by_head = (batch, length, n_heads, channels // n_heads)
    normaliser = (query * means).reshape(by_head).sum(dim=3, keepdim=True).clamp(min=SMALLEST)
    query = (query.reshape(by_head) / normaliser).flatten(2)
    return query if mask is None else query * mask[:, :, None].to(query.dtype)


class LinearAttention(nn.Module):
    """`linear_attention`. It is a module, so that its nodes have its name in a graph.

    joined: the argument of that name; None for the form that suits the graph.
    """

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.joined: bool | None = None

    def forward(
        self, projected: Projected, merge: Tensor, query_mask: Tensor | None, source_mask: Tensor | None
    ) -> Tensor:
        """See `linear_attention`."""
        return linear_attention(projected, self.n_heads, merge, query_mask, source_mask, self.joined)


def linear_attention(
    projected: Projected,
    n_heads: int,
    merge: Tensor,
    query_mask: Tensor | None,
    source_mask: Tensor | None,
    joined: bool | None = None,
) -> Tensor:
    """Linear attention with the feature map elu(x)+1 (Katharopoulos et al., ICML 2020), and the layer after it.

    projected: query `[B,L,C]`, key and value `[B,S,C]`. merge: `[C,C]`, the weights of the linear layer. Masks bool
    `[B,L]` and `[B,S]`. joined: whether one product gives the sums over the source; None for a static graph, which is
    made for GPUs. Returns `[B,L,C]`.

    Heads are not taken apart: products are of all channels, and entries that belong to two heads become zero. The
    queries are divided by their normaliser, not the messages, so that the sum over the source and the linear layer
    become one small matrix, and nothing as long as the images is written in between.
    """
    query, key, value = projected
    q, k = feature_map(query), feature_map(key)
    if source_mask is not None:
        k = k * source_mask[:, :, None].to(k.dtype)  # this takes the values of padding out too
    if joined is None:
        joined = isinstance(k.shape[1], int)
    means, matrix = (_seen_at_once if joined else _seen)(k, value, n_heads, merge)
    return normalised(q, means, n_heads, query_mask) @ matrix


def _seen(k: Tensor, value: Tensor, n_heads: int, merge: Tensor) -> tuple[Tensor, Tensor]:
    """What the queries see of a source: the keys' mean `[B,1,C]`, and `[B,C,C]`, which leads from queries to results.

    Means over the source instead of sums: nothing grows with its length, so half precision can hold everything.
    """
    length = k.shape[1]
    means = (k.new_ones(1, length) / length) @ k
    return means, (merge @ (own_heads(value.transpose(1, 2) @ k, n_heads) / length)).transpose(1, 2)


def _seen_at_once(k: Tensor, value: Tensor, n_heads: int, merge: Tensor) -> tuple[Tensor, Tensor]:
    """The same by one product over the source: the keys' mean is one more column, beside zeros that fill up eight.

    GPUs run it as one kernel less. CPUs are faster with two products, of which the larger one has the values first.
    """
    channels = value.shape[2]
    one = F.pad(value.new_ones(1, 1, 1), (0, 7)).expand(value.shape[0], value.shape[1], -1)
    both = k.transpose(1, 2) @ torch.cat([value, one], dim=2) / k.shape[1]
    means, products = both[:, :, channels : channels + 1], both[:, :, :channels]
    return means.transpose(1, 2), own_heads(products, n_heads) @ merge.transpose(0, 1)


def window_attention(query: Tensor, key: Tensor, value: Tensor, n_heads: int) -> Tensor:
    """Linear attention within thousands of small windows: query, key, value `[N,S,C]` -> `[N,S,C]`, no masks.

    Products are of all channels instead of each head's own, and entries that belong to two heads are set to zero. This
    is more arithmetic, but in matrices that fill a tensor core. Matrices of single heads are 16 x 25, and take GPUs
    five times as long.
    """
    length, channels = key.shape[1:]
    same = same_head(channels, n_heads, key) / length
    q, k = feature_map(query), feature_map(key)
    q = normalised(q, k.sum(dim=1, keepdim=True) / length, n_heads, None)
    return q @ ((k.transpose(1, 2) @ value) * same)


def full_attention(query: Tensor, key: Tensor, value: Tensor, source_mask: Tensor | None) -> Tensor:
    """Softmax attention: query `[B,h,L,d]`, key and value `[B,h,S,d]`, mask bool `[B,S]` -> `[B,h,L,d]`."""
    scores = (query @ key.transpose(2, 3)) / query.shape[3] ** 0.5
    if source_mask is not None:
        scores = scores.masked_fill(~source_mask[:, None, None, :], MASKED)
    return scores.softmax(dim=3) @ value


class JoinedLinear(nn.Linear):
    """A linear layer without bias of two tensors of equal width, side by side."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:  # type: ignore[override]
        """`[...,C]` and `[...,C]` -> `[...,D]`. There are two products, so that nothing is joined before them."""
        channels = first.shape[-1]
        return F.linear(first, self.weight[:, :channels]) + F.linear(second, self.weight[:, channels:])


class LoFTREncoderLayer(nn.Module):
    """One layer: `m = norm1(merge(attention(x, source)))`, `x + norm2(mlp([x, m]))`; no biases but the norms'."""

    def __init__(self, d_model: int, n_heads: int, attention: AttentionKind, norm_eps: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention = attention
        self.windows = False  # whether its inputs are many small windows, for `window_attention`
        self.attend = LinearAttention(n_heads)
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model, bias=False)
        self.merge = nn.Linear(d_model, d_model, bias=False)
        self.mlp = nn.Sequential(
            JoinedLinear(2 * d_model, 2 * d_model, bias=False), nn.ReLU(), nn.Linear(2 * d_model, d_model, bias=False)
        )
        self.norm1 = nn.LayerNorm(d_model, eps=norm_eps)
        self.norm2 = nn.LayerNorm(d_model, eps=norm_eps)

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, channels = x.shape
        return x.view(batch, length, self.n_heads, channels // self.n_heads).transpose(1, 2)

    def forward(self, x: Tensor, source: Tensor, x_mask: Tensor | None, source_mask: Tensor | None) -> Tensor:
        """x `[B,L,C]`, source `[B,S,C]`, masks bool `[B,L]`, `[B,S]` -> `[B,L,C]`."""
        message = self.norm1(self._message(x, source, x_mask, source_mask))
        return x + self.norm2(self.mlp[1:](self.mlp[0](x, message)))

    def _message(self, x: Tensor, source: Tensor, x_mask: Tensor | None, source_mask: Tensor | None) -> Tensor:
        """`merge(attention(x, source))`, `[B,L,C]`."""
        query, key, value = self.q_proj(x), self.k_proj(source), self.v_proj(source)
        if self.attention == "full":
            message = full_attention(self._heads(query), self._heads(key), self._heads(value), source_mask)
            return self.merge(message.transpose(1, 2).reshape(x.shape))
        if self.windows:
            return self.merge(window_attention(query, key, value, self.n_heads))
        return self.attend((query, key, value), self.merge.weight, x_mask, source_mask)


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
