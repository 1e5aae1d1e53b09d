"""The head that makes the first warp and overlap from tokens (DPT: Ranftl et al., ICCV 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.roma.config import Size
from matchrt.models.roma.decoder import Probe
from matchrt.models.romav2.config import HeadConfig


def corners_resize(x: Tensor, size: Size) -> Tensor:
    """Bilinear interpolation of `[B,C,h,w]` to (height, width); the centres of the corner pixels stay in place."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class ResidualUnit(nn.Module):
    """`conv2(relu(conv1(relu(x)))) + relu(x)`.

    The published network was trained with a ReLU that overwrites its input, so what is added is not x itself.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B,C,h,w] -> [B,C,h,w]`."""
        positive = F.relu(x)
        return self.conv2(F.relu(self.conv1(positive))) + positive


class Fusion(nn.Module):
    """A level and the result of the coarser levels to a result at another size."""

    def __init__(self, width: int, coarsest: bool) -> None:
        super().__init__()
        self.resConfUnit1 = None if coarsest else ResidualUnit(width)
        self.resConfUnit2 = ResidualUnit(width)
        self.out_conv = nn.Conv2d(width, width, 1)

    def forward(self, level: Tensor, coarser: Tensor | None, size: Size) -> Tensor:
        """level `[B,C,h,w]`, coarser of the same shape, None at the coarsest level -> `[B,C,*size]`.

        The last convolution stands before the interpolation, not behind it as in the published code: both are linear
        and the weights of an interpolation add up to 1, so the result is the same, with a quarter of the arithmetic.
        """
        x = level
        if self.resConfUnit1 is not None and coarser is not None:
            x = coarser + self.resConfUnit1(level)
        return corners_resize(self.out_conv(self.resConfUnit2(x)), size)


class Scratch(nn.Module):
    """The fusion of four levels and the last convolutions, under the names of the published file."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        width, (first, second) = config.width, config.last
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            nn.Conv2d(channels, width, 3, padding=1, bias=False) for channels in config.levels
        )
        self.refinenet1, self.refinenet2, self.refinenet3 = (Fusion(width, coarsest=False) for _ in range(3))
        self.refinenet4 = Fusion(width, coarsest=True)
        self.output_conv1 = nn.Conv2d(width, first, 3, padding=1)
        self.output_conv2 = nn.Sequential(nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.Conv2d(second, 3, 1))

    def forward(self, levels: list[Tensor], probe: Probe | None = None) -> Tensor:
        """The four levels `[B,C,h,w]`, finest first -> `[B,3,h,w]` at the finest level's size."""
        convolutions = (self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn)
        fusions = (self.refinenet1, self.refinenet2, self.refinenet3, self.refinenet4)
        narrow = [convolution(level) for convolution, level in zip(convolutions, levels, strict=True)]
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        finest = sizes[0]
        targets = ((2 * finest[0], 2 * finest[1]), *sizes[:-1])
        x: Tensor | None = None
        for index in (3, 2, 1, 0):
            x = fusions[index](narrow[index], x, targets[index])
            if probe is not None:
                probe(f"dpt_layer{index + 1}_rn", narrow[index])
                probe(f"dpt_refinenet{index + 1}", x)
        x = self.output_conv1(x)
        if probe is not None:
            probe("dpt_conv1", x)
        return self.output_conv2(corners_resize(x, finest))


class DPTHead(nn.Module):
    """Tokens of four levels to a warp and an overlap logit at a quarter of the image's size."""

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__()
        first, second, _, fourth = config.levels
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.projects = nn.ModuleList(nn.Conv2d(dim, channels, 1) for channels in config.levels)
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(fourth, fourth, 3, stride=2, padding=1),
            )
        )
        self.scratch = Scratch(config)

    def forward(self, tokens: tuple[Tensor, Tensor], grid: Size, probe: Probe | None = None) -> Tensor:
        """tokens: `[B,N,C]` for the two finer levels, and for the two coarser ones; grid: (rows, columns) of patches.

        Returns `[B,3,4*rows,4*columns]`: the normalised position x, y in the other image, and the overlap's logit.
        """
        finer, coarser = (self.norm(x).transpose(1, 2).unflatten(2, grid) for x in tokens)
        levels = (finer, finer, coarser, coarser)
        projected = [project(x) for project, x in zip(self.projects, levels, strict=True)]
        return self.scratch([resize(x) for resize, x in zip(self.resize_layers, projected, strict=True)], probe)
