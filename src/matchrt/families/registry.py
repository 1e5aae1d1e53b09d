"""The registry of families and their models.

A family is one line of the table `FAMILIES`. Everything else about it is in the module that the line names.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from matchrt.errors import MatchRTError
from matchrt.families.definition import FamilyDefinition, ModelSpec

Rules = TypeVar("Rules")

# Name -> "module:attribute" of its `FamilyDefinition`, in the order in which models are listed.
FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "loftr": "matchrt.families.loftr:LOFTR_FAMILY",
        "roma": "matchrt.families.roma:ROMA_FAMILY",
        "romav2": "matchrt.families.romav2:ROMAV2_FAMILY",
        "eloftr": "matchrt.families.eloftr:ELOFTR_FAMILY",
        "xoftr": "matchrt.families.xoftr:XOFTR_FAMILY",
    }
)


def find_family(name: str) -> FamilyDefinition | None:
    """The family of that name; None if there is none, as for an engine that another program has written."""
    if name not in FAMILIES:
        return None
    module, _, attribute = FAMILIES[name].partition(":")
    found: FamilyDefinition = getattr(importlib.import_module(module), attribute)
    return found


def is_dense(name: str) -> bool:
    """Whether the networks of the family of that name make a dense warp; False for an unknown family."""
    found = find_family(name)
    return found is not None and found.dense


def family_of(name: str) -> FamilyDefinition:
    """The family of that name. Error: family-unknown, which lists the names."""
    found = find_family(name)
    if found is None:
        raise MatchRTError(
            "family-unknown", f"There is no family of networks '{name}'.", f"Known families: {', '.join(FAMILIES)}."
        )
    return found


def require_rules(family: str, precision: str, rules_of: Callable[[FamilyDefinition], Rules | None]) -> Rules:
    """The family's rules of a precision. Error: `precision-family`, which lists the families that have some.

    precision: `fp16` or `int8`, as messages name it.
    rules_of: reads the rules of that precision from a family.
    """
    found = find_family(family)
    rules = None if found is None else rules_of(found)
    if rules is None:
        known = ", ".join(other.name for other in families() if rules_of(other) is not None)
        raise MatchRTError(
            "precision-family",
            f"There are no {precision} rules for the family '{family}'.",
            f"Build with --precision fp32; {precision} is known for {known}.",
        )
    return rules


def families() -> tuple[FamilyDefinition, ...]:
    """Every known family."""
    return tuple(family_of(name) for name in FAMILIES)


def model_specs() -> Mapping[str, ModelSpec]:
    """Every known model by name."""
    return {spec.name: spec for family in families() for spec in family.models}


def get_spec(name: str) -> ModelSpec:
    """The model of that name. Error: model-unknown, which lists the names."""
    specs = model_specs()
    if name in specs:
        return specs[name]
    close = difflib.get_close_matches(name, specs, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise MatchRTError("model-unknown", f"There is no model '{name}'.{hint}", f"Known models: {', '.join(specs)}.")
