"""Applies the sizes, the preset and the family options of a build to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from matchrt.errors import MatchRTError
from matchrt.families.definition import FamilyDefinition, ModelSpec, Preset
from matchrt.families.registry import families, family_of


class ModelRequest(Protocol):
    """The part of a `BuildRequest` that is read here. None means that the request sets nothing."""

    @property
    def height(self) -> int | None:
        """Input height in pixels."""
        ...

    @property
    def width(self) -> int | None:
        """Input width in pixels."""
        ...

    @property
    def mutual(self) -> bool | None:
        """Whether only mutual nearest cells match; see `Family.with_matching`."""
        ...

    @property
    def preset(self) -> str | None:
        """Name of one of the family's presets."""
        ...

    @property
    def dense(self) -> bool:
        """Whether the engine returns the family's dense outputs too."""
        ...

    @property
    def family_options(self) -> Mapping[str, object]:
        """The family's own options by name."""
        ...


@dataclass(frozen=True)
class ConfiguredModel:
    """The model as it is built. `spec.family.coarse` says whether it also takes smaller copies of the images.

    spec: the model with its family's options applied.
    height, width: input size in pixels.
    mutual: the rule that the request or a named preset sets; None to keep the model's own.
    """

    spec: ModelSpec
    height: int
    width: int
    mutual: bool | None


def configure(spec: ModelSpec, request: ModelRequest) -> ConfiguredModel:
    """Applies a request to a model. Errors: option-model, preset-unknown, and those of the family's options."""
    definition = family_of(spec.family.name)
    _require_taken(spec, definition, request)
    preset = _preset(spec.presets or definition.presets, request.preset)
    size = (spec.height, spec.width) if preset is None else preset.size
    height = size[0] if request.height is None else request.height
    width = size[1] if request.width is None else request.width
    mutual = request.mutual
    if mutual is None and request.preset is not None and preset is not None:
        mutual = preset.mutual
    family = spec.family.with_options({} if preset is None else preset.options, request.family_options)
    return ConfiguredModel(replace(spec, family=family), height, width, mutual)


def _preset(presets: tuple[Preset, ...], name: str | None) -> Preset | None:
    """The preset of that name; without a name the default, None if there are no presets. Error: preset-unknown."""
    if name is None:
        return presets[0] if presets else None
    for preset in presets:
        if preset.name == name:
            return preset
    known = ", ".join(preset.name for preset in presets)
    raise MatchRTError("preset-unknown", f"There is no preset '{name}'.", f"Known presets: {known}.")


def _require_taken(spec: ModelSpec, definition: FamilyDefinition, request: ModelRequest) -> None:
    """Raises `option-model` for an option that the family does not have."""
    given: list[tuple[str, Callable[[FamilyDefinition], bool]]] = []
    if request.preset is not None:
        given.append(("preset", lambda family: bool(family.presets)))
    given += [(name, _takes(name)) for name in request.family_options]
    if request.dense:
        given.append(("dense", lambda family: family.dense))
    for name, taken in given:
        if not taken(definition):
            others = ", ".join(family.title for family in families() if taken(family))
            raise MatchRTError(
                "option-model",
                f"--{name.replace('_', '-')} is for {others or 'no'} models, and {spec.name} is not one of them.",
                "Leave the option out.",
            )


def _takes(option: str) -> Callable[[FamilyDefinition], bool]:
    return lambda family: option in family.options
