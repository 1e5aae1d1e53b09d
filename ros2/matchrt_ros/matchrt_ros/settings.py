"""The node's parameters: names, defaults, and what each may be. No ROS is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from matchrt import MatcherOptions, MatchRTError
from matchrt.runtime.bundled import DEFAULT_MODEL

MODES = ("two_topics", "keyframe", "previous")
GEOMETRIES = ("fundamental", "homography")


@dataclass(frozen=True)
class Settings:
    """All parameters with their defaults; config/match.yaml says what each is.

    ROS parameters cannot be None: 0, -1 and "" stand for a default.
    """

    engine: str = DEFAULT_MODEL
    backend: str = ""
    mode: str = "two_topics"
    keyframe_file: str = ""
    sync_slop: float = 0.02
    max_rate: float = 0.0
    reliable: bool = False
    min_score: float = -1.0
    resize: int = 0
    stretch: str = "none"
    threads: int = 0
    verify: str = ""
    verify_threshold: float = 0.0
    draw: bool = False
    stale_after: float = 5.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """The settings of these parameters. Errors: option-range, backend-unknown, image-missing."""
        known = [field for field in fields(cls) if field.name in values]
        settings = cls(**{field.name: _typed(field.name, values[field.name], field.default) for field in known})
        settings._check()
        return settings

    def options(self) -> MatcherOptions:
        """The matcher's options. Errors: option-range, backend-unknown."""
        return MatcherOptions(
            resize=self.resize or None,
            min_score=None if self.min_score == -1 else self.min_score,
            stretch=self.stretch,  # type: ignore[arg-type]
            threads=self.threads or None,
            backend=self.backend or None,
            # Cameras differ in size from engines for frames; images of the frames' own size are taken as they are.
            fit_frames=True,
        )

    def _check(self) -> None:
        limits = (
            ("engine", bool(self.engine), "an engine file or a name, not empty"),
            ("mode", self.mode in MODES, f"one of {', '.join(MODES)}"),
            ("sync_slop", _at_least(self.sync_slop, 0), "0 s or more"),
            ("max_rate", _at_least(self.max_rate, 0), "0 (no limit) or more pairs a second"),
            ("resize", self.resize >= 0, "0 (the engine's best size) or more pixels"),
            ("threads", self.threads >= 0, "0 (the runtime's choice) or more"),
            ("verify", self.verify in ("", *GEOMETRIES), f"empty or one of {', '.join(GEOMETRIES)}"),
            ("verify_threshold", _at_least(self.verify_threshold, 0), "0 (the default) or more pixels"),
            ("stale_after", _at_least(self.stale_after, 0.1), "0.1 s or more"),
            (
                "keyframe_file",
                not self.keyframe_file or self.mode == "keyframe",
                "empty, unless mode is keyframe",
            ),
        )
        for name, good, wanted in limits:
            if not good:
                raise MatchRTError(
                    "option-range",
                    f"The parameter {name} is {getattr(self, name)!r}.",
                    f"It must be {wanted}. config/match.yaml lists all parameters.",
                )
        if self.keyframe_file and not Path(self.keyframe_file).is_file():
            raise MatchRTError(
                "image-missing", f"There is no file '{self.keyframe_file}'.", "Set keyframe_file to an image file."
            )
        self.options()


def _typed(name: str, value: Any, default: Any) -> Any:
    """The value in the type of its default; a whole number will do for a float. Error: option-range."""
    kind = type(default)
    if type(value) is kind or (kind is float and type(value) is int):
        return kind(value)
    raise MatchRTError(
        "option-range",
        f"The parameter {name} is {value!r}, a {type(value).__name__}.",
        f"It must be of type {kind.__name__}, such as {default!r}.",
    )


def _at_least(value: float, least: float) -> bool:
    return math.isfinite(value) and value >= least
