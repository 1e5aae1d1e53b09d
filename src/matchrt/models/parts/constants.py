"""Numbers that a network's code states, as tensors of a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def constant(values: list[Any], like: Tensor) -> Tensor:
    """Numbers, in lists as deep as the tensor has axes, with the type and on the device of `like`."""
    return torch.tensor(values, dtype=like.dtype).to(like.device)
