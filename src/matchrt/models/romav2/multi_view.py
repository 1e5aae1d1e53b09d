"""The transformer that sees both images: in turn the patches of both, and those of each image alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matchrt.models.roma.decoder import Probe
from matchrt.models.romav2.config import MultiViewConfig
from matchrt.models.romav2.rotary import Rotation
from matchrt.models.romav2.transformer import Block


class MultiViewTransformer(nn.Module):
    """Features of both images' patches to features of the same patches that know the other image.

    Blocks with even numbers attend to both images, without positions; the others to each image alone, with them.
    """

    def __init__(self, inputs: int, outputs: int, config: MultiViewConfig) -> None:
        super().__init__()
        self.projector = nn.Linear(inputs, config.dim)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.mlp_ratio, 1e-6, layer_scale=False) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.output_projector = nn.Linear(config.dim, outputs)

    def forward(self, features: Tensor, turn: Rotation, probe: Probe | None = None) -> Tensor:
        """`[2B,N,inputs]`, first all images 0 -> `[2B,N,outputs]`; turn: the rotation of one image's patches."""
        x = self.projector(features)
        if probe is not None:
            probe("mv_projector", x)
        for index, block in enumerate(self.blocks):
            x = block(x, turn) if index % 2 else apart(block(together(x)))
            if probe is not None:
                probe(f"mv_block{index}", x)
        return self.output_projector(self.norm(x))


def together(x: Tensor) -> Tensor:
    """Tokens `[2B,N,C]` of all images 0, then of all images 1, as the tokens `[B,2N,C]` of each pair."""
    if x.shape[0] == 2:
        return x.reshape(1, -1, x.shape[2])  # nothing moves
    return torch.cat(x.chunk(2), dim=1)


def apart(x: Tensor) -> Tensor:
    """The inverse of `together`."""
    if x.shape[0] == 1:
        return x.reshape(2, -1, x.shape[2])
    return torch.cat(x.chunk(2, dim=1))
