"""The protocol `Family`, which building uses for every network, and code that families share.

A `Family` is a family's name with one network configuration. What is the same for all configurations is in its
`FamilyDefinition`. Together they hold everything that differs between families, so that the code that loads, exports
and proves networks names no family. Methods import torch themselves, because listing the models does not need it.
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
    """How images become a model's input. The manifest's `InputContract` says the same for one engine.

    channels: 1 for grey, 3 for RGB.
    divisor: the sides of the input are multiples of so many pixels.
    static: how images are fitted into an input of fixed size.
    dynamic: how images are fitted into an input of any size; None if the model cannot be built for any size.
    kernel: how images are resampled.
    coarse: (height, width) in pixels of the smaller copies of the images that the model takes by default; None for
        models that take none.
    coarse_divisor: the sides of these copies are multiples of so many pixels.
    """

    channels: int
    divisor: int
    static: Fitting = "letterbox"
    dynamic: Fitting | None = "aspect"
    kernel: Kernel = "area-linear"
    coarse: tuple[int, int] | None = None
    coarse_divisor: int = 1


class Family(Protocol):
    """A family's name with one configuration. Objects are frozen, so they can be shared."""

    @property
    def name(self) -> str:
        """The family's name, as manifests state it."""
        ...

    @property
    def config(self) -> Any:
        """The network's configuration: a frozen dataclass, which is part of the build key."""
        ...

    @property
    def coarse_stride(self) -> int:
        """Number of input pixels along a side of a coarse cell."""
        ...

    @property
    def score_reach(self) -> float:
        """Within how many pixels of image 0 a match has a part in another's score or place; 0 where it has none."""
        ...

    @property
    def coarse(self) -> tuple[int, int] | None:
        """(height, width) in pixels of the smaller copies of the images that the network also takes; None for none."""
        ...

    def with_options(self, preset: Mapping[str, object], given: Mapping[str, object]) -> Family:
        """The family with the values of its own options applied.

        preset: values that hold unless the request sets them. given: the request's values. Both are by names of
        `FamilyDefinition.options`. Errors: the family's own.
        """
        ...

    def with_matching(self, threshold: float | None, mutual: bool | None) -> Family:
        """The family with another threshold (0..1) or mutual test; None keeps a value. Error: threshold-range."""
        ...

    def at(self, height: int, width: int) -> Family:
        """The family for an input of that size (or best size) in pixels, if its configuration depends on the size."""
        ...

    def create(self) -> nn.Module:
        """The network with untrained weights, in training mode."""
        ...

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """Constants that the network computes and some checkpoints contain, by name, as functions of a shape."""
        ...

    def graph(self, network: nn.Module, max_matches: int, published: bool = False) -> EngineGraph:
        """The network with the engine's inputs and outputs, in its deployed form, which engines run faster.

        max_matches: number of match slots. published: use the authors' form instead, if the family has it; comparisons
        of speed measure it in torch.
        """
        ...

    def probing(self, network: nn.Module) -> AbstractContextManager[None]:
        """While it is entered, the network returns all matches that it finds (threshold 0). Parity uses it."""
        ...

    def match_contract(self, max_matches: int, default_score: float) -> MatchContract:
        """What the manifest says about the matching stage."""
        ...


FamilyT = TypeVar("FamilyT", bound="GridFamily")


@dataclass(frozen=True)
class GridFamily:
    """The base of families whose network matches the cells of a coarse grid by the rules in `config.match`.

    A subclass adds `create`, and overrides what is different in it. See `Family` for the methods.

    config: the network's configuration.
    name: the family's name.
    """

    config: Any
    name: str

    @property
    def coarse_stride(self) -> int:
        """See `Family`."""
        return int(self.config.coarse_stride)

    @property
    def coarse(self) -> tuple[int, int] | None:
        """None, because one size of the images is enough."""
        return None

    @property
    def score_reach(self) -> float:
        """0, because each match has its own score."""
        return 0.0

    def with_options(self: FamilyT, preset: Mapping[str, object], given: Mapping[str, object]) -> FamilyT:
        """The family itself, because it has no options."""
        del preset, given
        return self

    def with_matching(self: FamilyT, threshold: float | None, mutual: bool | None) -> FamilyT:
        """See `Family`."""
        return replace(self, config=replace(self.config, match=adjusted(self.config.match, threshold, mutual)))

    def at(self: FamilyT, height: int, width: int) -> FamilyT:
        """The family itself, because its configuration does not depend on the image's size."""
        del height, width
        return self

    def create(self) -> nn.Module:
        """See `Family`."""
        raise NotImplementedError

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """No constants, because checkpoints contain none."""
        return {}

    def deployed(self, network: nn.Module) -> nn.Module:
        """The deployed form of the network, which engines run faster; here the network itself. It changes nothing."""
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
    """Changes these fields of the network's configuration while it is entered."""
    config: Any = network.config
    network.config = replace(config, **changes)
    try:
        yield
    finally:
        network.config = config


def adjusted(match: CoarseMatchConfig, threshold: float | None, mutual: bool | None) -> CoarseMatchConfig:
    """The rules with another threshold (0..1) or mutual test; None keeps a value. Error: threshold-range."""
    if threshold is not None:
        match = replace(match, threshold=require_threshold(threshold))
    return match if mutual is None else replace(match, mutual=mutual)


def require_threshold(threshold: float, usual: float = 0.2) -> float:
    """The threshold, if it is a share. usual: a value for the message. Error: threshold-range."""
    if not 0.0 <= threshold < 1.0:
        raise MatchRTError(
            "threshold-range", f"Threshold {threshold} is outside 0..1.", f"Use a value such as {usual}."
        )
    return threshold
