"""RoMa, export-first: one static graph from the images at two sizes to a dense warp and its certainty.

Written from the paper (Edstedt et al., "RoMa: Robust Dense Feature Matching", CVPR 2024) and the facts of the published
checkpoints; module names are the checkpoints' names, `dinov2` holds the separate DINOv2 file. Normalised coordinates:
-1 and 1 are the edges of an image, x right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from matchrt.models.roma.config import RoMaConfig, Size
from matchrt.models.roma.decoder import FINE, Flow, Probe, RoMaDecoder, resize
from matchrt.models.roma.dinov2 import DINOv2
from matchrt.models.roma.feature_map import FeatureMap
from matchrt.models.roma.grid import pixel_grid
from matchrt.models.roma.vgg import VGGPyramid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
# Side of the images that RoMa's displacement embedding was trained at.
TRAINING_SIDE = 560
# The negative part of the coarse logit, times this, is subtracted from the fine logit, as in the official code.
ATTENUATION = 0.5


@dataclass(frozen=True)
class DenseMatches:
    """The result of RoMa's `match`.

    warp: `[B,H,W or 2W,4]`: x, y in image 0 and x, y in image 1, normalised. With both directions, the left half has a
        row for each pixel of image 0 and the right half one for each pixel of image 1.
    certainty: `[B,H,W or 2W]` in 0..1.
    """

    warp: Tensor
    certainty: Tensor


class Encoder(nn.Module):
    """The convolutional pyramid under the checkpoint's name."""

    def __init__(self, config: RoMaConfig) -> None:
        super().__init__()
        self.cnn = VGGPyramid(config.vgg)


class RoMa(nn.Module):
    """The network. `forward` is the official `match`; the stages are methods, so that each can be tested alone."""

    def __init__(self, config: RoMaConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = RoMaDecoder(config)
        self.dinov2 = DINOv2(config.dinov2)

    def normalised(self, image: Tensor) -> Tensor:
        """Normalises images `[B,3,H,W]` in 0..1 as the network was trained with."""
        if not self.config.imagenet:
            return image
        mean, deviation = image.new_tensor(IMAGENET_MEAN), image.new_tensor(IMAGENET_DEVIATION)
        return (image - mean.reshape(1, 3, 1, 1)) / deviation.reshape(1, 3, 1, 1)

    def patch_grid(self, size: Size) -> Size:
        """(rows, columns) of patches of an image of `size`, (height, width) in pixels."""
        return size[0] // self.config.dinov2.patch, size[1] // self.config.dinov2.patch

    def encode_coarse(self, images: Tensor, position: Tensor | None = None) -> dict[int, FeatureMap]:
        """`[B,3,H,W]`, normalised -> features at 16 (patches of 14 pixels), 8, 4, 2, 1.

        position: `self.dinov2.position` of the grid, computed here when absent.
        """
        grid = self.patch_grid((images.shape[2], images.shape[3]))
        tokens = self.dinov2(images, self.dinov2.position(grid) if position is None else position)[:, 1:]
        return {16: FeatureMap.of_rows(tokens, grid), **self.encode_fine(images)}

    def encode_fine(self, images: Tensor) -> dict[int, FeatureMap]:
        """`[B,3,H,W]`, normalised -> features at 8, 4, 2, 1."""
        return {scale: FeatureMap.of(features) for scale, features in self.encoder.cnn(images).items()}

    def scale_factors(self, coarse: Size, fine: Size | None) -> tuple[float, float]:
        """Factors of the displacement embedding in the two passes; see `RoMaConfig.scale_rule`.

        coarse, fine: (height, width) of the two passes' images, pixels; None for no second pass.
        """
        last = fine or coarse
        if self.config.scale_rule == "absolute":
            return _side(coarse) / TRAINING_SIDE, _side(last) / TRAINING_SIDE
        return 1.0, _side(last) / _side(coarse)

    def pairs(self, pyramid: dict[int, FeatureMap]) -> tuple[dict[int, FeatureMap], dict[int, FeatureMap]]:
        """Features of [A, B] to those of the images matched from and of the images matched to.

        These are [A, B] and [B, A], or A and B if only one direction is matched.
        """
        half = {scale: features.count // 2 for scale, features in pyramid.items()}
        count = {scale: features.count if self.config.symmetric else half[scale] for scale, features in pyramid.items()}
        first = {scale: features.part(0, count[scale]) for scale, features in pyramid.items()}
        return first, {scale: features.part(half[scale], count[scale]) for scale, features in pyramid.items()}

    def coarse_pass(
        self, images: Tensor, scale_factor: float, position: Tensor | None = None, probe: Probe | None = None
    ) -> dict[int, Flow]:
        """`images [2B,3,H,W]`, first all images 0, then all images 1 -> flow of every scale."""
        pyramid = self.encode_coarse(images, position)
        projected = self.decoder.project(pyramid)
        if probe is not None:
            for scale, features in pyramid.items():
                probe(f"features{scale}", features.planes())
            for scale, features in projected.items():
                probe(f"proj{scale}", features.planes())
        first, second = self.pairs(projected)
        start = self.decoder.coarse_match(first[16], second[16], probe)
        return self.decoder.refine(start, first, second, scale_factor, probe)

    def upsample_pass(self, images: Tensor, start: Flow, scale_factor: float) -> dict[int, Flow]:
        """`images [2B,3,H,W]` at the finer size; start: the coarse pass's result at scale 1."""
        pyramid = self.encode_fine(images)
        first, second = self.pairs(self.decoder.project({scale: pyramid[scale] for scale in FINE}))
        return self.decoder.refine(start, first, second, scale_factor)

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        fine0: Tensor | None = None,
        fine1: Tensor | None = None,
        position: Tensor | None = None,
    ) -> DenseMatches:
        """Images `[B,3,H,W]` in 0..1 at the coarse size, and the same images at the finer size for the second pass."""
        size = (image0.shape[2], image0.shape[3])
        fine_size = None if fine0 is None else (fine0.shape[2], fine0.shape[3])
        coarse_factor, fine_factor = self.scale_factors(size, fine_size)
        images = torch.cat([image0, image1])
        coarse = self.coarse_pass(self.normalised(images), coarse_factor, position)
        result = coarse[1]
        if fine0 is not None and fine1 is not None:
            images = torch.cat([fine0, fine1])
            result = self.upsample_pass(self.normalised(images), result, fine_factor)[1]
        return self.finish(result, coarse[16].certainty, self.black_pixels(images))

    def black_pixels(self, images: Tensor) -> Tensor | None:
        """bool `[B or 2B,H,W]` of images `[2B,3,H,W]` in 0..1 that are matched from; None if black is like any colour.

        The authors' code looks at the pixels of the image before it is resized, and takes the nearest one.
        """
        if not self.config.black:
            return None
        own = images if self.config.symmetric else images.chunk(2)[0]
        return own.amax(dim=1) < self.config.black

    def finish(self, result: Flow, coarse_certainty: Tensor, black: Tensor | None = None) -> DenseMatches:
        """The warp and certainty of a flow at scale 1.

        The fine certainty is corrected by the coarse one `[B,1,h,w]` (see ATTENUATION), matches outside of the image
        and those of `black` pixels get certainty 0, and the two directions are joined.
        """
        height, width = result.flow.shape[2:]
        doubt = resize(coarse_certainty, (height, width)).clamp(max=0.0)
        certainty = torch.sigmoid(result.certainty - ATTENUATION * doubt)[:, 0]
        outside = result.flow.abs().amax(dim=1) > 1.0
        if black is not None:
            outside = outside | black
        certainty = torch.where(outside, torch.zeros_like(certainty), certainty)
        target = result.flow.clamp(-1.0, 1.0).permute(0, 2, 3, 1)
        here = pixel_grid(height, width, target.device).permute(0, 2, 3, 1).expand(target.shape[0], -1, -1, -1)
        if not self.config.symmetric:
            return DenseMatches(torch.cat([here, target], dim=3), certainty)
        from_first, from_second = target.chunk(2)
        here = here.chunk(2)[0]
        left, right = torch.cat([here, from_first], dim=3), torch.cat([from_second, here], dim=3)
        return DenseMatches(torch.cat([left, right], dim=2), torch.cat(certainty.chunk(2), dim=2))


def _side(size: Size) -> float:
    """Side of the square of the same area."""
    return float((size[0] * size[1]) ** 0.5)
