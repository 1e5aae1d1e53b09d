"""LoFTR and its relatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from matchrt.export.families.base import Preprocess, adjusted
from matchrt.manifest import MatchContract
from matchrt.models.config import LoFTRConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from matchrt.export.engine_graph import EngineGraph

LOFTR_INPUT = Preprocess(channels=1, divisor=8)
COARSE_LOFTR_INPUT = Preprocess(channels=1, divisor=16)


@dataclass(frozen=True)
class LoFTRFamily:
    """See `Family`."""

    config: LoFTRConfig
    name: str = "loftr"

    @property
    def coarse_stride(self) -> int:
        """See `Family`."""
        return self.config.coarse_stride

    def with_matching(self, threshold: float | None, mutual: bool | None) -> LoFTRFamily:
        """See `Family`."""
        return replace(self, config=replace(self.config, match=adjusted(self.config.match, threshold, mutual, 1.0)))

    def at(self, height: int, width: int) -> LoFTRFamily:
        """The position code of a cell does not depend on the image's size."""
        del height, width
        return self

    def create(self) -> nn.Module:
        """See `Family`."""
        from matchrt.models.loftr import LoFTR

        return LoFTR(self.config)

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """The position encoding: as its 2-D table, or as the frequencies that the table is made of."""
        from matchrt.models.position import sine_encoding, sine_frequencies

        def position_encoding(shape: tuple[int, ...]) -> Tensor:
            frequencies = sine_frequencies(self.config.coarse.d_model, self.config.fixed_position_divisor)
            return sine_encoding(shape[-2], shape[-1], frequencies) if len(shape) > 1 else frequencies

        return {"position encoding": position_encoding}

    def graph(self, network: nn.Module, max_matches: int) -> EngineGraph:
        """See `Family`."""
        from matchrt.export.engine_graph import EngineGraph

        return EngineGraph(network, max_matches)

    @contextmanager
    def probing(self, network: nn.Module) -> Iterator[None]:
        """See `Family`."""
        from matchrt.models.loftr import LoFTR

        assert isinstance(network, LoFTR)
        config = network.config
        network.config = replace(config, match=replace(config.match, threshold=0.0))
        try:
            yield
        finally:
            network.config = config

    def match_contract(self, max_matches: int, default_score: float) -> MatchContract:
        """See `Family`."""
        match = self.config.match
        return MatchContract(
            max_matches, match.threshold, match.border, match.mutual, self.coarse_stride, default_score
        )
