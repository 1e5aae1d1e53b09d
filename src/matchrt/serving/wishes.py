"""What a request for matches may ask for, besides its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from matchrt.runtime.options import Effort, MatcherOptions, Switch
from matchrt.serving.failures import bad_request

_KNOWN_PARAMETERS = ("min_score", "rotate", "zoom", "effort", "timeout")


@dataclass(frozen=True)
class Wishes:
    """What a request asks for, in the fields of `MatcherOptions`.

    min_score: matches with a lower score are dropped; None for the engine's default.
    rotate: whether image 1 is turned if the pair gives little; None for only with high effort.
    zoom: whether each image is tried at half the size if the pair gives little; None for only with high effort.
    effort: how much is tried if the pair gives little.
    """

    min_score: float | None = None
    rotate: Switch | None = None
    zoom: Switch | None = None
    effort: Effort = "normal"

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Wishes:
        """The wishes in the parameters of an inference request. Error: request-invalid, also for unknown names."""
        if unknown := sorted(set(parameters) - set(_KNOWN_PARAMETERS)):
            raise bad_request(f"Unknown parameter '{unknown[0][:80]}'.", f"Known: {', '.join(_KNOWN_PARAMETERS)}.")
        score = parameters.get("min_score")
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1):
            raise bad_request("'min_score' is not a number in 0..1.", "Give, for instance, 0.4.")
        return cls(
            None if score is None else float(score),
            _one_of(parameters, "rotate", None, get_args(Switch)),
            _one_of(parameters, "zoom", None, get_args(Switch)),
            _one_of(parameters, "effort", "normal", get_args(Effort)),
        )

    @property
    def none(self) -> bool:
        """Whether one run as it is serves them. Raises nothing."""
        return self.min_score is None and "auto" not in (self.rotate, self.zoom) and self.effort == "normal"

    def options(self, max_pixels: int) -> MatcherOptions:
        """The matcher's options for these wishes. max_pixels: of an image. Raises nothing."""
        return MatcherOptions(
            min_score=self.min_score, max_pixels=max_pixels, rotate=self.rotate, zoom=self.zoom, effort=self.effort
        )


def _one_of(parameters: Mapping[str, Any], name: str, default: str | None, known: tuple[Any, ...]) -> Any:
    value = parameters.get(name, default)
    if name in parameters and value not in known:
        raise bad_request(f"'{name}' is none of {', '.join(known)}.", f"Give, for instance, {known[-1]}.")
    return value
