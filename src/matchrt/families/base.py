"""What building needs of one network: `Family`, and what families share.

A `Family` is a family's name with one network configuration; what is the same for all its configurations is its
`FamilyDefinition`. Together they hold everything that differs between families, so that loading, exporting and proving
know none of them. Methods import torch themselves: listing the models needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from matchrt.errors import MatchRTError
from matchrt.manifest import Fitting, Kernel, MatchContract
from matchrt.models.parts.config import CoarseMatchConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from matchrt.models.parts.engine_graph import EngineGraph


@dataclass(frozen=True)
class Preprocess:
    """How images become a model's input; the manifest's `InputContract` says the same for one engine.

    static, dynamic: how images are fitted into an input of fixed size, and of any size; dynamic None: the model cannot
    be built for any size.
    coarse: (height, width) of the smaller copies of the images that the model takes by default, whose sides are
    multiples of `coarse_divisor`; None for models that take none.
    """

    channels: int
    divisor: int
    static: Fitting = "letterbox"
    dynamic: Fitting | None = "aspect"
    kernel: Kernel = "area-linear"
    coarse: tuple[int, int] | None = None
    coarse_divisor: int = 1


class Family(Protocol):
    """A family's name with one configuration; frozen, hence safe to share."""

    @property
    def name(self) -> str:
        """The family, as the manifest states it."""
        ...

    @property
    def config(self) -> Any:
        """The network's configuration, a frozen dataclass; part of the build key."""
        ...

    @property
    def coarse_stride(self) -> int:
        """Input pixels a coarse cell."""
        ...

    @property
    def coarse(self) -> tuple[int, int] | None:
        """(height, width) of the smaller copies of the images that the network takes too; None: it takes none."""
        ...

    def arranged(self, preset: Mapping[str, object], given: Mapping[str, object]) -> Family:
        """The family with its own options.

        preset: their values where nothing else is said. given: what the request says, by names of
        `FamilyDefinition.options`. Errors: the family's own.
        """
        ...

    def with_matching(self, threshold: float | None, mutual: bool | None) -> Family:
        """The family with other matching rules; None keeps a rule. Error: threshold-range."""
        ...

    def at(self, height: int, width: int) -> Family:
        """The family for an input of that size, where the configuration depends on it; dynamic: the best size."""
        ...

    def create(self) -> nn.Module:
        """The network with untrained weights, in training mode."""
        ...

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """What the network computes and some checkpoints hold all the same, by name, for a shape."""
        ...

    def graph(self, network: nn.Module, max_matches: int, published: bool = False) -> EngineGraph:
        """The network with the engine's contract around it, in the form that engines run faster.

        published: in the authors' form, where that is at hand: torch's side of a comparison of speed.
        """
        ...

    def probing(self, network: nn.Module) -> AbstractContextManager[None]:
        """While it is entered, the network returns every match that it finds (threshold 0): a probe for parity."""
        ...

    def match_contract(self, max_matches: int, default_score: float) -> MatchContract:
        """What the manifest says of the matching stage."""
        ...


FamilyT = TypeVar("FamilyT", bound="GridFamily")


@dataclass(frozen=True)
class GridFamily:
    """What families share whose network matches the cells of a coarse grid by `config.match`. See `Family`.

    A family of its own adds `create`, and what it does otherwise.
    """

    config: Any
    name: str

    @property
    def coarse_stride(self) -> int:
        """See `Family`."""
        return int(self.config.coarse_stride)

    @property
    def coarse(self) -> tuple[int, int] | None:
        """One size of the images is enough."""
        return None

    def arranged(self: FamilyT, preset: Mapping[str, object], given: Mapping[str, object]) -> FamilyT:
        """There are no options."""
        del preset, given
        return self

    def with_matching(self: FamilyT, threshold: float | None, mutual: bool | None) -> FamilyT:
        """See `Family`."""
        return replace(self, config=replace(self.config, match=adjusted(self.config.match, threshold, mutual)))

    def at(self: FamilyT, height: int, width: int) -> FamilyT:
        """The configuration does not depend on the image's size."""
        del height, width
        return self

    def create(self) -> nn.Module:
        """See `Family`."""
        raise NotImplementedError

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """The files hold none."""
        return {}

    def deployed(self, network: nn.Module) -> nn.Module:
        """The network in the form that engines run faster, which `network` does not become; here the same."""
        return network

    def graph(self, network: nn.Module, max_matches: int, published: bool = False) -> EngineGraph:
        """See `Family`."""
        from matchrt.models.parts.engine_graph import EngineGraph

        return EngineGraph(network if published else self.deployed(network), max_matches)

    def probing(self, network: nn.Module) -> AbstractContextManager[None]:
        """See `Family`."""
        return configured(network, match=replace(self.config.match, threshold=0.0))

    def match_contract(self, max_matches: int, default_score: float) -> MatchContract:
        """See `Family`."""
        match = self.config.match
        return MatchContract(
            max_matches, match.threshold, match.border, match.mutual, self.coarse_stride, default_score
        )


@contextmanager
def configured(network: nn.Module, **changes: Any) -> Iterator[None]:
    """While it is entered, the network's configuration has these fields changed."""
    config: Any = network.config
    network.config = replace(config, **changes)
    try:
        yield
    finally:
        network.config = config


def adjusted(match: CoarseMatchConfig, threshold: float | None, mutual: bool | None) -> CoarseMatchConfig:
    """The rules with another threshold or mutual test. Error: threshold-range."""
    if threshold is not None:
        if not 0.0 <= threshold < 1.0:
            raise MatchRTError("threshold-range", f"Threshold {threshold} is outside 0..1.", "Use e.g. 0.2.")
        match = replace(match, threshold=threshold)
    return match if mutual is None else replace(match, mutual=mutual)
