"""From the features of both images to the first warp: multi-view transformer, matching of all patches, head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matchrt.models.roma.config import Size
from matchrt.models.roma.decoder import Probe
from matchrt.models.roma.grid import pixel_grid
from matchrt.models.romav2.config import RoMaV2Config
from matchrt.models.romav2.directions import matched_from, matched_to
from matchrt.models.romav2.dpt_head import DPTHead
from matchrt.models.romav2.multi_view import MultiViewTransformer
from matchrt.models.romav2.rotary import Rotation, rotation

# The cosine of two patches is divided by it. The published file has the same number in `matcher.temp`.
TEMPERATURE = 0.1


class PatchMatching(nn.Module):
    """The mean of the other image's embedded positions, weighted by how much its patches look alike."""

    def forward(self, first: Tensor, second: Tensor, positions: Tensor, probe: Probe | None = None) -> Tensor:
        """first `[B,N,C]`, second `[B,M,C]`, positions `[M,E]` of the second's patches -> `[B,N,E]`, float32."""
        logits = (_unit(first.float()) / TEMPERATURE) @ _unit(second.float()).transpose(1, 2)
        if probe is not None:
            probe("attn_logits", logits)
        return torch.softmax(logits, dim=2) @ positions


def _unit(x: Tensor) -> Tensor:
    """`[...,C]` with length 1."""
    return x / x.square().sum(dim=-1, keepdim=True).sqrt()


class Matcher(nn.Module):
    """The coarse matcher, under the names of the published file."""

    def __init__(self, config: RoMaV2Config) -> None:
        super().__init__()
        self.config = config
        dim = config.dinov3.dim
        self.omega = nn.Parameter(torch.zeros(config.frequencies, 2))
        self.mv_vit = MultiViewTransformer(2 * dim, dim, config.multi_view)
        self.match = PatchMatching()
        self.head = DPTHead(dim, config.head)

    def rotation(self, grid: Size) -> Rotation:
        """The rotation of one image's patches, in bfloat16 as the network was trained; see `rotary`."""
        view = self.config.multi_view
        return rotation(grid, view.dim // view.heads, torch.bfloat16)

    def positions(self, grid: Size) -> Tensor:
        """The Fourier basis `[N, 2 * frequencies]` at the centres of the patches of a grid (rows, columns)."""
        centres = pixel_grid(*grid, self.omega.device)[0].flatten(1).transpose(0, 1)
        phase = centres @ self.omega.float().transpose(0, 1)
        return torch.cat([phase.sin(), phase.cos()], dim=1)

    def forward(
        self,
        features: list[Tensor],
        grid: Size,
        turn: Rotation,
        positions: Tensor,
        symmetric: bool,
        probe: Probe | None = None,
    ) -> Tensor:
        """DINOv3's features `[2B,N,C]` of two levels, first all images 0 -> `[D,3,4*rows,4*columns]`.

        grid: (rows, columns) of patches. turn, positions: of that grid. symmetric: see `directions`, as D. The channels
        are those of `DPTHead`.
        """
        low, high = features
        views = self.mv_vit(torch.cat(features, dim=2), turn, probe)
        if probe is not None:
            probe("mv_out", views)
        matched = self.match(matched_from(views, symmetric), matched_to(views, symmetric), positions, probe)
        merged = matched_from(high + views, symmetric) + matched.to(high.dtype)
        if probe is not None:
            probe("match_emb", matched)
            probe("dpt_in_last", merged)
        return self.head((matched_from(low, symmetric), merged), grid, probe)
