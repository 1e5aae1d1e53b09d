"""RoMa v2, export-first: one static graph from the images at one or two sizes to warp, overlap and precision.

Written from the facts of the published file and network (Edstedt et al., "RoMa v2: Harder Better Faster Denser Feature
Matching", arXiv 2511.15706). Module names are the file's names. Normalised coordinates: -1 and 1 are the edges of an
image, x right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from matchrt.models.roma.config import Size
from matchrt.models.roma.decoder import Probe
from matchrt.models.roma.network import IMAGENET_DEVIATION, IMAGENET_MEAN
from matchrt.models.roma.vgg import VGGPyramid
from matchrt.models.romav2.config import RoMaV2Config
from matchrt.models.romav2.dinov3 import DINOv3
from matchrt.models.romav2.matcher import Matcher
from matchrt.models.romav2.refiner import Estimate, Refiner
from matchrt.models.romav2.rotary import Rotation


@dataclass(frozen=True)
class Tables:
    """What depends on the grid of patches only.

    backbone: rotation of DINOv3's tokens.
    matcher: rotation of one image's patches in the matcher.
    positions: `[N, 2 * frequencies]`, the embedded positions of the patches.
    """

    backbone: Rotation
    matcher: Rotation
    positions: Tensor


class RoMaV2(nn.Module):
    """The network; the stages are methods, so that each can be tested alone."""

    def __init__(self, config: RoMaV2Config) -> None:
        super().__init__()
        self.config = config
        self.f = DINOv3(config.dinov3)
        self.matcher = Matcher(config)
        channels = {2**index: stage[-1] for index, stage in enumerate(config.vgg)}
        self.refiners = nn.ModuleDict(
            {
                str(r.scale): Refiner(channels[r.scale], r, config.refiner_blocks, config.volume_pixels)
                for r in config.refiners
            }
        )
        self.refiner_features = VGGPyramid(config.vgg)

    def normalised(self, image: Tensor) -> Tensor:
        """Normalises images `[B,3,H,W]` in 0..1 by ImageNet's mean and deviation."""
        mean, deviation = image.new_tensor(IMAGENET_MEAN), image.new_tensor(IMAGENET_DEVIATION)
        return (image - mean.reshape(1, 3, 1, 1)) / deviation.reshape(1, 3, 1, 1)

    def tables(self, size: Size) -> Tables:
        """The tables for images of `size`, (height, width) in pixels."""
        grid = self.patch_grid(size)
        device = self.matcher.omega.device
        backbone, matcher = (
            Rotation(turn.cosine.to(device), turn.sine.to(device))
            for turn in (self.f.rotation(grid), self.matcher.rotation(grid))
        )
        return Tables(backbone, matcher, self.matcher.positions(grid))

    def patch_grid(self, size: Size) -> Size:
        """(rows, columns) of patches of an image of `size`, (height, width) in pixels."""
        return size[0] // self.config.dinov3.patch, size[1] // self.config.dinov3.patch

    def coarse_match(self, images: Tensor, tables: Tables, probe: Probe | None = None) -> Estimate:
        """`images [2B,3,H,W]`, normalised, first all images 0 -> the first estimate, at a quarter of their size."""
        grid = self.patch_grid((images.shape[2], images.shape[3]))
        features = self.f(images, tables.backbone, probe)
        if probe is not None:
            for index, value in enumerate(features):
                probe(f"dino_out.{index}", value)
        symmetric = self.config.symmetric
        out = self.matcher(features, grid, tables.matcher, tables.positions, symmetric, probe).float()
        if probe is not None:
            probe("dpt_out", out)
        return Estimate(out[:, :2], out[:, 2:])

    def refine(self, images: Tensor, start: Estimate, probe: Probe | None = None) -> Estimate:
        """`images [2B,3,H,W]`, normalised; start: of any size -> the estimate at the images' size."""
        size = (images.shape[2], images.shape[3])
        pyramid = self.refiner_features(images)
        current = start
        for config in self.config.refiners:
            scale = config.scale
            current = current.resized((size[0] // scale, size[1] // scale))
            if probe is not None:
                probe(f"vgg{scale}", pyramid[scale])
                probe(f"r{scale}_prev_warp", current.warp)
            current = self.refiners[str(scale)](pyramid[scale], current, size, self.config.symmetric, probe)
            if probe is not None:
                probe(f"r{scale}_warp", current.warp)
                assert current.precision is not None
                probe(f"r{scale}_conf", torch.cat([current.logit, current.precision], dim=1))
        return current

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        fine0: Tensor | None = None,
        fine1: Tensor | None = None,
        tables: Tables | None = None,
    ) -> Estimate:
        """Images `[B,3,H,W]` in 0..1, and the same images at the finer size for a second refinement.

        tables: `self.tables` of the first size, computed here when absent. Returns the estimate at the last size; its
        D rows are B matches of images 0 to images 1 and, with both directions, B matches of images 1 to images 0.
        """
        images = self.normalised(torch.cat([image0, image1]))
        size = (images.shape[2], images.shape[3])
        result = self.refine(images, self.coarse_match(images, self.tables(size) if tables is None else tables))
        if fine0 is None or fine1 is None:
            return result
        # Precisions of the first pass are in other pixels; the second pass begins without.
        return self.refine(self.normalised(torch.cat([fine0, fine1])), Estimate(result.warp, result.logit))
