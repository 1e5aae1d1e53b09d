"""DINOv3: the frozen vision transformer that gives RoMa v2 the features of each image (Siméoni et al., 2025)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matchrt.models.roma.config import Size
from matchrt.models.roma.decoder import Probe
from matchrt.models.roma.dinov2 import PatchEmbed
from matchrt.models.romav2.config import DINOv3Config
from matchrt.models.romav2.rotary import Rotation, rotation
from matchrt.models.romav2.transformer import Block


class DINOv3(nn.Module):
    """The transformer up to the last block that is read; names are those of the published file."""

    def __init__(self, config: DINOv3Config) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.storage_tokens = nn.Parameter(torch.zeros(1, config.storage, dim))
        self.patch_embed = PatchEmbed(dim, config.patch)
        self.blocks = nn.ModuleList(
            Block(dim, config.heads, config.mlp_ratio, 1e-5, layer_scale=True) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def rotation(self, grid: Size) -> Rotation:
        """The rotation of all tokens of an image with that grid of patches; the first ones are not turned."""
        config = self.config
        return rotation(grid, config.dim // config.heads, torch.float32).behind(1 + config.storage)

    def forward(self, image: Tensor, turn: Rotation, probe: Probe | None = None) -> list[Tensor]:
        """`image [B,3,H,W]` and the `rotation` of its grid -> the patches' features `[B,N,C]` of each tap."""
        patches = self.patch_embed(image)
        extra = torch.cat([self.cls_token, self.storage_tokens], dim=1).expand(patches.shape[0], -1, -1)
        x = torch.cat([extra, patches], dim=1)
        if probe is not None:
            probe("dino_tokens", x)
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x, turn)
            if probe is not None:
                probe(f"dino_block{index}", x)
            if index in self.config.taps:
                features.append(self.norm(x[:, extra.shape[1] :]))
        return features
