"""The models that have a Flax network."""

from __future__ import annotations

from matchrt.errors import MatchRTError
from matchrt.families.definition import ModelSpec
from matchrt.families.registry import families, family_of, get_spec


def flax_specs() -> dict[str, ModelSpec]:
    """The models that have a Flax network, by name."""
    return {spec.name: spec for family in families() if family.flax for spec in family.models}


def flax_spec(name: str) -> ModelSpec:
    """The model of that name. Errors: model-unknown, flax-model."""
    spec = get_spec(name)
    if not family_of(spec.family.name).flax:
        titles = ", ".join(family.title for family in families() if family.flax)
        raise MatchRTError(
            "flax-model",
            f"{name} has no Flax model; only {titles} models have one.",
            f"Use one of {', '.join(flax_specs())}.",
        )
    return spec
