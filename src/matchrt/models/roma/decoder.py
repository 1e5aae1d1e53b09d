"""From feature pyramids to flow and certainty: Gaussian process, match decoder, refiners from coarse to fine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.roma.config import RoMaConfig, Size
from matchrt.models.roma.feature_map import FeatureMap
from matchrt.models.roma.gaussian_process import GaussianProcess
from matchrt.models.roma.match_decoder import MatchDecoder, anchors_to_flow
from matchrt.models.roma.projection import Projection
from matchrt.models.roma.refiner import ConvRefiner

Pyramid = Mapping[int, FeatureMap]
# Called with the name of a stage and its result, for tests and measurements.
Probe = Callable[[str, Tensor], None]
COARSE, FINE = (16, 8, 4, 2, 1), (8, 4, 2, 1)


@dataclass(frozen=True)
class Flow:
    """Where the pixels of an image are in the other image.

    flow: float `[B,2,h,w]`, x and y in the other image, normalised: -1 and 1 are its edges.
    certainty: logits `[B,1,h,w]`.
    """

    flow: Tensor
    certainty: Tensor

    def resized(self, size: Size) -> Flow:
        """Flow and certainty, interpolated linearly to (height, width) `size`."""
        return Flow(resize(self.flow, size), resize(self.certainty, size))


def resize(x: Tensor, size: Size) -> Tensor:
    """Bilinear interpolation of `[B,C,h,w]` to (height, width) `size`; the image's edges stay where they are."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class RoMaDecoder(nn.Module):
    """The decoder; submodules have the names of the published checkpoints."""

    # A refiner's output of 1 moves the flow by scale / (4 * side) normalised units; `side` is the image's, in pixels.
    REFINE_UNIT = 4.0

    def __init__(self, config: RoMaConfig) -> None:
        super().__init__()
        coarse = config.refiners[0]
        self.embedding_decoder = MatchDecoder(config.gp.dim + coarse.features, config.match_decoder)
        self.gps = nn.ModuleDict({"16": GaussianProcess(config.gp)})
        channels = {16: config.dinov2.dim, **{2**i: stage[-1] for i, stage in enumerate(config.vgg)}}
        self.proj = nn.ModuleDict({str(r.scale): Projection(channels[r.scale], r.features) for r in config.refiners})
        self.conv_refiner = nn.ModuleDict(
            {str(r.scale): ConvRefiner(r, config.refiner_blocks, config.volume_pixels) for r in config.refiners}
        )

    def project(self, pyramid: Pyramid) -> dict[int, FeatureMap]:
        """Projects the features of each scale to the refiners' width."""
        return {scale: self.proj[str(scale)](features) for scale, features in pyramid.items()}

    def coarse_match(self, features0: FeatureMap, features1: FeatureMap, probe: Probe | None = None) -> Flow:
        """Global matching of the projected features of both images' patches."""
        posterior, rows, size = self.gps["16"](features0, features1), features0.rows, features0.size
        logits, certainty = self.embedding_decoder(posterior.to(rows.dtype), rows)
        certainty = certainty.reshape(-1, 1, *size)
        if probe is not None:
            probe("gp_posterior", FeatureMap.of_rows(posterior, size).planes())
            probe("gm_logits", logits)
            probe("gm_certainty_logit", certainty)
        return Flow(anchors_to_flow(logits, *size), certainty.float())

    def refine(
        self,
        start: Flow,
        pyramid0: Pyramid,
        pyramid1: Pyramid,
        scale_factor: float,
        probe: Probe | None = None,
    ) -> dict[int, Flow]:
        """Refines the flow from the pyramids' coarsest scale to scale 1, and returns every scale's result.

        start: the flow to begin with, of any size.
        pyramid0, pyramid1: projected features by scale, of the images matched from and matched to.
        scale_factor: factor of the displacement embedding.
        probe: called with every stage's result; None for none.
        """
        height, width = pyramid0[1].size
        current = start
        results: dict[int, Flow] = {}
        for scale in sorted(pyramid0, reverse=True):
            features = pyramid0[scale]
            if tuple(current.flow.shape[2:]) != features.size:
                current = current.resized(features.size)
            refiner = self.conv_refiner[str(scale)]
            delta, certainty = refiner(features, pyramid1[scale], current.flow, scale_factor)
            if probe is not None:
                probe(f"refiner{scale}_delta", delta)
                probe(f"refiner{scale}_dcert", certainty)
            unit = delta.new_tensor([scale / (self.REFINE_UNIT * width), scale / (self.REFINE_UNIT * height)])
            current = Flow(current.flow + delta * unit.reshape(1, 2, 1, 1), current.certainty + certainty)
            results[scale] = current
        return results
