"""Normalised coordinates: -1 and 1 are the image's edges, so that the centre of pixel i of n is (2i + 1) / n - 1."""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """Normalised centres of all pixels, `[1,2,height,width]`, x before y."""
    x = torch.linspace(-1 + 1 / width, 1 - 1 / width, width, device=device)
    y = torch.linspace(-1 + 1 / height, 1 - 1 / height, height, device=device)
    return torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)])[None]


def to_pixels(coordinate: Tensor, length: int) -> Tensor:
    """Normalised coordinates `[...]` to pixels whose centres are integers: -1 is -0.5, 1 is length - 0.5."""
    return (coordinate + 1.0) * (length / 2.0) - 0.5
