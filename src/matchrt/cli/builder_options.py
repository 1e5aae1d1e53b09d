"""Parsing of the builder's options on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.nvidia.dialect import BuilderOptions, HardwareLevel

_LEVELS: tuple[HardwareLevel, ...] = ("same-compute-capability", "ampere-plus")


def builder_options(
    target: str | None,
    workspace_mb: int | None,
    optimization_level: int | None,
    tf32: bool,
    hardware_compatible: str | None,
    version_compatible: bool,
    timing_cache: Path | None,
) -> BuilderOptions:
    """The builder's options. workspace_mb: in MiB. Error: build-option."""
    from matchrt.nvidia.dialect import BuilderOptions

    return BuilderOptions(
        targets=parse_targets(target) if target else (),
        hardware=_level(hardware_compatible),
        version_compatible=version_compatible,
        workspace=None if workspace_mb is None else workspace_mb * 2**20,
        optimization_level=optimization_level,
        tf32=tf32,
        timing_cache=timing_cache,
    )


def parse_targets(text: str) -> tuple[str, ...]:
    """Compute capabilities such as ("8.0", "8.9") from `sm80,sm89` or `8.0,8.9`. Error: build-option."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"(?:sm_?)?(\d+)\.?(\d)", part.strip().lower())
        if match is None:
            raise MatchRTError(
                "build-option",
                f"--target '{part}' is not a compute capability.",
                "Write sm89, for example, or sm80,sm89.",
            )
        found.append(f"{match[1]}.{match[2]}")
    return tuple(found)


def _level(name: str | None) -> HardwareLevel:
    if name is None:
        return "exact"
    for level in _LEVELS:
        if name == level:
            return level
    raise MatchRTError(
        "build-option", f"--hardware-compatible '{name}' is not a level.", f"Levels: {', '.join(_LEVELS)}."
    )
