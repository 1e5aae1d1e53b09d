"""RoMa and MatchAnything-RoMa: one network, two files of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from matchrt.errors import MatchRTError
from matchrt.families.base import Preprocess, configured
from matchrt.families.keymap import Drop, Keep, KeyMap
from matchrt.manifest import MatchContract
from matchrt.models.roma.config import RoMaConfig, Size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from matchrt.models.parts.engine_graph import EngineGraph

# Patches of 14 pixels, and three halvings: multiples of both.
COARSE_DIVISOR = 56
ROMA_INPUT = Preprocess(
    channels=3,
    divisor=8,
    static="stretch",
    dynamic=None,
    kernel="bicubic",
    coarse=(560, 560),
    coarse_divisor=COARSE_DIVISOR,
)
ROMA_KEYS = KeyMap(
    (
        Keep("encoder.cnn.layers.**"),
        Keep("decoder.embedding_decoder.**"),
        Keep("decoder.gps.16.pos_conv.*"),
        Keep("decoder.proj.**"),
        Keep("decoder.conv_refiner.**"),
    ),
    prefixes=("module.", "_orig_mod.", "matcher.", "model.", "net.", "network."),
)
DINOV2_KEYS = KeyMap(
    (
        Keep("cls_token"),
        Keep("pos_embed"),
        Keep("patch_embed.proj.*"),
        Keep("blocks.**"),
        Keep("norm.*"),
        Drop("mask_token", "stands for hidden patches in training; matching hides none"),
    ),
    prefixes=("module.", "_orig_mod.", "model.", "backbone.", "dinov2.", "encoder.dinov2."),
)


@dataclass(frozen=True)
class RoMaFamily:
    """See `Family`.

    size: (height, width) of the last pass. coarse: of the first one, None where it is the only pass.
    """

    config: RoMaConfig
    size: Size = (864, 864)
    coarse: Size | None = (560, 560)
    name: str = "roma"

    @property
    def coarse_stride(self) -> int:
        """Of the grid on which most memory is needed: features and local correlations at 1/8."""
        return self.config.refiners[1].scale

    def with_matching(self, threshold: float | None, mutual: bool | None) -> RoMaFamily:
        """mutual: match both ways and join, as the official code does, or image 0 to image 1 only."""
        config = self.config
        if threshold is not None:
            if not 0.0 <= threshold < 1.0:
                raise MatchRTError("threshold-range", f"Threshold {threshold} is outside 0..1.", "Use e.g. 0.05.")
            config = replace(config, threshold=threshold)
        return replace(self, config=config if mutual is None else replace(config, symmetric=mutual))

    def at(self, height: int, width: int) -> RoMaFamily:
        """The position embedding is resampled for the coarse size, the displacements are scaled by both."""
        return replace(self, size=(height, width))

    def create(self) -> nn.Module:
        """See `Family`."""
        from matchrt.models.roma.network import RoMa

        return RoMa(self.config)

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """The files hold none."""
        return {}

    def graph(self, network: nn.Module, max_matches: int) -> EngineGraph:
        """See `Family`."""
        from matchrt.models.roma.engine_graph import RoMaGraph
        from matchrt.models.roma.network import RoMa

        assert isinstance(network, RoMa)
        return RoMaGraph(network, max_matches, self.size, self.coarse)

    def probing(self, network: nn.Module) -> AbstractContextManager[None]:
        """See `Family`."""
        from matchrt.models.roma.network import RoMa

        assert isinstance(network, RoMa)
        return configured(network, threshold=0.0)

    def match_contract(self, max_matches: int, default_score: float) -> MatchContract:
        """See `Family`. mutual: both directions are matched and joined; nothing is tested for being mutual."""
        config = self.config
        return MatchContract(max_matches, config.threshold, 0, config.symmetric, self.coarse_stride, default_score)
