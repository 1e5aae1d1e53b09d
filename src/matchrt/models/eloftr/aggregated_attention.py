"""EfficientLoFTR's transformer: attention between tokens that each represent a square of coarse cells (section 3.2).

Features are `[B,h,w,C]` throughout. Aggregating is a weighted sum over squares, and two small matrix products lead back
to the full grid, so nothing is transposed between the layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.eloftr.config import ELoFTRConfig
from matchrt.models.eloftr.rotary import rotary_axis, rotary_table, rotated_rows
from matchrt.models.parts.halves import halves
from matchrt.models.parts.masks import PADDING


@dataclass(frozen=True)
class Lattice:
    """What attention needs to know of the grid of aggregated cells, of one image or one batch.

    rows: `[1 or B, h, h/a]`, interpolates from the aggregated to the coarse rows.
    columns: `[1 or B, w, w/a]`, the same of columns.
    bias: `[B, 1, 1, (h/a)*(w/a)]`, PADDING for a cell of padding and 0 elsewhere; None without padding.
    """

    rows: Tensor
    columns: Tensor
    bias: Tensor | None

    def both(self, other: Lattice) -> Lattice:
        """The lattice of two batches of equal size, one after the other."""
        if self.bias is None or other.bias is None:
            return self
        return Lattice(
            torch.cat([self.rows, other.rows]),
            torch.cat([self.columns, other.columns]),
            torch.cat([self.bias, other.bias]),
        )


def lattice(height: int, width: int, aggregation: int, valid: Tensor | None, device: torch.device) -> Lattice:
    """The lattice of a coarse grid of height x width cells.

    aggregation: coarse cells along a side of a square.
    valid: int `[B,2]`, rows and columns of cells that hold image; None for all. The input contract's divisor makes them
        multiples of `aggregation`.
    """
    small = height // aggregation, width // aggregation
    if valid is None:
        rows = _interpolation(height, small[0], small[0] - 1, aggregation, device)
        return Lattice(rows, _interpolation(width, small[1], small[1] - 1, aggregation, device), None)
    limits = torch.div(valid, aggregation, rounding_mode="floor")
    inside_rows = torch.arange(small[0], device=device)[None] < limits[:, :1]
    inside_columns = torch.arange(small[1], device=device)[None] < limits[:, 1:]
    outside = ~(inside_rows[:, :, None] & inside_columns[:, None, :]).flatten(1)
    bias = outside[:, None, None, :].to(torch.float32) * PADDING
    last_row, last_column = ((limits[:, axis : axis + 1] - 1).to(torch.float32) for axis in (0, 1))
    rows = _interpolation(height, small[0], last_row, aggregation, device)
    return Lattice(rows, _interpolation(width, small[1], last_column, aggregation, device), bias)


def _interpolation(full: int, small: int, last: Tensor | int, aggregation: int, device: torch.device) -> Tensor:
    """Bilinear interpolation (corners not aligned) along one axis as a matrix, `[1 or B, full, small]`.

    last: the last aggregated cell of the valid part, float `[B,1]` or one number for all. Positions are clamped to it:
    a cell at the edge repeats the edge, as if the padding were cut off.
    """
    position = (((torch.arange(full, device=device) + 0.5) / aggregation - 0.5)[None]).clamp(min=0.0)
    position = torch.minimum(position, last) if isinstance(last, Tensor) else position.clamp(max=last)
    cells = torch.arange(small, device=device, dtype=torch.float32)
    return (1.0 - (position[:, :, None] - cells).abs()).clamp(min=0.0)


class AggregatedAttentionLayer(nn.Module):
    """`m = up(merge(attention(norm1(sum(x)), norm1(max(source)))))`, `x + norm2(mlp([x, m]))`.

    sum: learned weights over each square of cells; max: the largest value of each channel in it; up: bilinear.
    """

    def __init__(self, d_model: int, n_heads: int, aggregation: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.aggregation = aggregation
        self.aggregate = nn.Conv2d(d_model, d_model, aggregation, aggregation, groups=d_model, bias=False)
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model, bias=False)
        self.merge = nn.Linear(d_model, d_model, bias=False)
        hidden = nn.Linear(2 * d_model, 2 * d_model, bias=False)
        self.mlp = nn.Sequential(hidden, nn.LeakyReLU(0.01), nn.Linear(2 * d_model, d_model, bias=False))
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def forward(
        self, x: Tensor, source: Tensor, grid: Lattice, source_grid: Lattice, rotary: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """x, source `[B,h,w,C]`; rotary: sine and cosine `[1,S,C]` in self layers -> `[B,h,w,C]`."""
        query = self.norm1(self._sums(x)).flatten(1, 2)
        key = self.norm1(self._maxima(source)).flatten(1, 2)
        message = self._attend(query, key, source_grid.bias, rotary)
        return x + self.norm2(self._mix(x, message, grid))

    def _squares(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        a = self.aggregation
        return x.reshape(batch, height // a, a, width // a, a, channels)

    def _sums(self, x: Tensor) -> Tensor:
        weight = self.aggregate.weight[:, 0].permute(1, 2, 0)[:, None]  # [a, 1, a, C]
        return (self._squares(x) * weight).sum(2).sum(3)

    def _maxima(self, x: Tensor) -> Tensor:
        return self._squares(x).amax(2).amax(3)

    def _attend(
        self, query: Tensor, source: Tensor, bias: Tensor | None, rotary: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Softmax attention, `[B,L,C]` and `[B,S,C]` -> `[B,L,C]`."""
        q, k, v = (self._heads(part) for part in self._projected(query, source, rotary))
        scores = q @ k.transpose(2, 3)
        if bias is not None:
            scores = scores + bias
        return (scores.softmax(dim=3) @ v).transpose(1, 2).flatten(2)

    def _projected(
        self, query: Tensor, source: Tensor, rotary: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (scaled), keys and values.

        There is one product for each input: the weights stand side by side, with the rotated ones.
        """
        channels = query.shape[2]
        q_weight = self.q_proj.weight * (channels // self.n_heads) ** -0.5
        k_weight, v_weight = self.k_proj.weight, self.v_proj.weight
        if rotary is None:
            k, v = F.linear(source, torch.cat([k_weight, v_weight])).chunk(2, dim=2)
            return F.linear(query, q_weight), k, v
        sine, cosine = rotary
        q, q_turned = F.linear(query, torch.cat([q_weight, rotated_rows(q_weight)])).chunk(2, dim=2)
        weights = torch.cat([k_weight, rotated_rows(k_weight), v_weight])
        k, k_turned, v = F.linear(source, weights).chunk(3, dim=2)
        return q * cosine + q_turned * sine, k * cosine + k_turned * sine, v

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, channels = x.shape
        return x.reshape(batch, length, self.n_heads, channels // self.n_heads).transpose(1, 2)

    def _mix(self, x: Tensor, message: Tensor, grid: Lattice) -> Tensor:
        """`mlp([x, up(merge(message))])`, `[B,h,w,C]`.

        The first product's half for the message is taken before interpolating it, where there are a 16th as many
        cells, together with `merge`: both are linear, and so is the interpolation.
        """
        channels = x.shape[3]
        hidden = self.get_parameter("mlp.0.weight")
        small = F.linear(message, hidden[:, channels:] @ self.merge.weight)
        first = F.linear(x, hidden[:, :channels]) + self._interpolate(small, grid)
        return self.mlp[1:](first)

    @staticmethod
    def _interpolate(small: Tensor, grid: Lattice) -> Tensor:
        """`[B,(h/a)*(w/a),C] -> [B,h,w,C]`."""
        batch, _, channels = small.shape
        height, width = grid.rows.shape[2], grid.columns.shape[2]
        tall = grid.rows @ small.reshape(batch, height, width * channels)
        return grid.columns[:, None] @ tall.reshape(batch, tall.shape[1], width, channels)


class AggregatedTransformer(nn.Module):
    """Self and cross layers in turn. One layer serves both images; in a cross layer image 1 sees the new image 0."""

    def __init__(self, config: ELoFTRConfig) -> None:
        super().__init__()
        self.aggregation = config.aggregation
        self.layers = nn.ModuleList(
            AggregatedAttentionLayer(config.d_model, config.n_heads, config.aggregation)
            for _ in range(2 * config.layer_pairs)
        )
        sine, cosine = rotary_axis(config.d_model, config.position_scale)
        self.register_buffer("sine", sine, persistent=False)
        self.register_buffer("cosine", cosine, persistent=False)

    def rotary(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Sine and cosine `[1,S,C]` for a coarse grid of height x width cells."""
        small = height // self.aggregation, width // self.aggregation
        return rotary_table(self.get_buffer("sine"), *small), rotary_table(self.get_buffer("cosine"), *small)

    def forward(
        self, x0: Tensor, x1: Tensor, valid0: Tensor | None = None, valid1: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x0, x1 `[B,h,w,C]` (sizes may differ), valid int `[B,2]` in coarse cells -> the same shapes; padding is 0."""
        grid0 = lattice(x0.shape[1], x0.shape[2], self.aggregation, valid0, x0.device)
        grid1 = lattice(x1.shape[1], x1.shape[2], self.aggregation, valid1, x1.device)
        for index, layer in enumerate(self.layers):
            if index % 2:
                x0 = layer(x0, x1, grid0, grid1, None)
                x1 = layer(x1, x0, grid1, grid0, None)
            else:
                x0, x1 = self._self_layer(layer, x0, x1, grid0, grid1)
        return _without_padding(x0, valid0), _without_padding(x1, valid1)

    def _self_layer(
        self, layer: nn.Module, x0: Tensor, x1: Tensor, grid0: Lattice, grid1: Lattice
    ) -> tuple[Tensor, Tensor]:
        """Images of equal size are one call, which is half as many kernels on a GPU."""
        rotary = self.rotary(x0.shape[1], x0.shape[2])
        if x0.shape != x1.shape:
            return layer(x0, x0, grid0, grid0, rotary), layer(x1, x1, grid1, grid1, self.rotary(*x1.shape[1:3]))
        both, grid = torch.cat([x0, x1]), grid0.both(grid1)
        first, second = halves(layer(both, both, grid, grid, rotary))
        return first, second


def _without_padding(x: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return x
    rows = torch.arange(x.shape[1], device=x.device)[None] < valid[:, :1]
    columns = torch.arange(x.shape[2], device=x.device)[None] < valid[:, 1:]
    return x * (rows[:, :, None] & columns[:, None, :])[..., None].to(x.dtype)
