"""What families of dense networks share: stretched images, one or two passes, one or both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from matchrt.errors import MatchRTError
from matchrt.families.base import configured, require_threshold
from matchrt.manifest import MatchContract

if TYPE_CHECKING:
    from torch import Tensor, nn

    from matchrt.models.parts.engine_graph import EngineGraph

Size = tuple[int, int]
FamilyT = TypeVar("FamilyT", bound="DenseFamily")


@dataclass(frozen=True)
class DenseFamily:
    """The base of families whose network makes a warp of all pixels. See `Family` for the methods.

    A subclass adds `coarse_stride`, `create` and `graph`.

    config: the network's configuration, which has a `threshold` and says whether it is `symmetric`.
    size: (height, width) of the images in the last pass, in pixels.
    coarse: (height, width) of the images in the first pass, in pixels; None if there is only one pass.
    name: the family's name.
    """

    config: Any
    size: Size
    coarse: Size | None
    name: str

    @property
    def coarse_stride(self) -> int:
        """See `Family`."""
        raise NotImplementedError

    @property
    def score_reach(self) -> float:
        """0, because each match has its own score."""
        return 0.0

    def with_options(self: FamilyT, preset: Mapping[str, object], given: Mapping[str, object]) -> FamilyT:
        """The family with its options `coarse`, (height, width) of the first pass, and `single_pass`, which leaves one.

        preset, given: see `Family`. Errors: preset-size, size-syntax.
        """
        if given.get("single_pass") and given.get("coarse") is not None:
            raise MatchRTError(
                "preset-size",
                "--coarse is the size of the first of two passes, but --single-pass leaves only one pass.",
                "Give one of the two options.",
            )
        if given.get("single_pass"):
            return replace(self, coarse=None)
        coarse = given.get("coarse")
        return replace(self, coarse=_size(preset.get("coarse") if coarse is None else coarse))

    def with_matching(self: FamilyT, threshold: float | None, mutual: bool | None) -> FamilyT:
        """See `Family`. mutual: match both directions and join them, or only image 0 to image 1.

        Error: threshold-range.
        """
        config = self.config
        if threshold is not None:
            config = replace(config, threshold=require_threshold(threshold, 0.05))
        return replace(self, config=config if mutual is None else replace(config, symmetric=mutual))

    def at(self: FamilyT, height: int, width: int) -> FamilyT:
        """The family for an input of that size: the size of the last pass is part of the graph."""
        return replace(self, size=(height, width))

    def create(self) -> nn.Module:
        """See `Family`."""
        raise NotImplementedError

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """No constants, because checkpoints contain none."""
        return {}

    def graph(self, network: nn.Module, max_matches: int, published: bool = False) -> EngineGraph:
        """See `Family`."""
        raise NotImplementedError

    def probing(self, network: nn.Module) -> AbstractContextManager[None]:
        """See `Family`."""
        return configured(network, threshold=0.0)

    def match_contract(self, max_matches: int, default_score: float) -> MatchContract:
        """See `Family`. `mutual` says that both directions are matched and joined; there is no mutual test."""
        config = self.config
        return MatchContract(max_matches, config.threshold, 0, config.symmetric, self.coarse_stride, default_score)


def _size(value: object) -> Size | None:
    """The option `coarse` as (height, width). Error: size-syntax."""
    if value is None:
        return None
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(side, int) for side in value):
        return value[0], value[1]
    raise MatchRTError(
        "size-syntax", f"The option coarse {value!r} is not (height, width).", "Give a pair such as (560, 560)."
    )
