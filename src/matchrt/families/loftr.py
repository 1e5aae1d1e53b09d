"""LoFTR and its relatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from matchrt.families.base import GridFamily, Preprocess, configured
from matchrt.models.parts.config import LoFTRConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

LOFTR_INPUT = Preprocess(channels=1, divisor=8)
COARSE_LOFTR_INPUT = Preprocess(channels=1, divisor=16)


@dataclass(frozen=True)
class LoFTRFamily(GridFamily):
    """See `Family`."""

    config: LoFTRConfig
    name: str = "loftr"

    def at(self, height: int, width: int) -> LoFTRFamily:
        """The position code of a cell does not depend on the image's size."""
        del height, width
        return self

    def create(self) -> nn.Module:
        """See `Family`."""
        from matchrt.models.loftr.network import LoFTR

        return LoFTR(self.config)

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """The position encoding: as its 2-D table, or as the frequencies that the table is made of."""
        from matchrt.models.loftr.position import sine_encoding, sine_frequencies

        def position_encoding(shape: tuple[int, ...]) -> Tensor:
            frequencies = sine_frequencies(self.config.coarse.d_model, self.config.fixed_position_divisor)
            return sine_encoding(shape[-2], shape[-1], frequencies) if len(shape) > 1 else frequencies

        return {"position encoding": position_encoding}

    def probing(self, network: nn.Module) -> AbstractContextManager[None]:
        """See `Family`."""
        from matchrt.models.loftr.network import LoFTR

        assert isinstance(network, LoFTR)
        return configured(network, match=replace(network.config.match, threshold=0.0))
