"""Frozen dataclasses from JSON values, with every field checked."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from functools import cache
from typing import Any, Literal

from matchrt._util.text import shortened, shown


def parse_json(kind: Any, value: Any, where: str) -> Any:
    """Builds `kind` from a JSON value and checks every field.

    kind: a dataclass, a union, a tuple, a dict, a Literal or a scalar type. where: what messages call the value.
    Error: ValueError that names the field.
    """
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, where)
    if origin in (types.UnionType, typing.Union):
        return _parse_union(typing.get_args(kind), value, where)
    if origin is tuple:
        return _parse_tuple(typing.get_args(kind), value, where)
    if origin is dict:
        return _parse_dict(typing.get_args(kind)[1], value, where)
    return _parse_scalar(kind, value, where)


def _parse_dict(kind: Any, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} should be an object")
    return {str(key): parse_json(kind, entry, f"{where}.{shortened(str(key))}") for key, entry in value.items()}


def _parse_scalar(kind: Any, value: Any, where: str) -> Any:
    if typing.get_origin(kind) is Literal:
        if not any(type(value) is type(known) and value == known for known in typing.get_args(kind)):
            raise ValueError(f"{where} is {shown(value)}")
        return value
    if kind is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where} should be {kind.__name__}, is {shown(value)}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{where} is {value}; it should be a finite number")
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields. They are evaluated from texts, which takes longer than the parsing."""
    return typing.get_type_hints(kind)


def _parse_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} should be an object")
    hints = _hints(kind)
    known = {entry.name: entry for entry in dataclasses.fields(kind)}
    if unknown := sorted(set(value) - set(known)):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise ValueError(f"{where} has unknown fields {', '.join(map(shortened, unknown[:3]))}{more}")
    no_default = dataclasses.MISSING
    required = {n for n, e in known.items() if e.default is no_default and e.default_factory is no_default}
    if missing := sorted(required - set(value)):
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    fields = {name: parse_json(hints[name], entry, f"{where}.{name}") for name, entry in value.items()}
    try:
        return kind(**fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _parse_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    errors = []
    for kind in (k for k in kinds if k is not type(None)):
        try:
            return parse_json(kind, value, where)
        except ValueError as error:
            errors.append(str(error))
    raise ValueError(errors[0])


def _parse_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list):
        raise ValueError(f"{where} should be a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(parse_json(kinds[0], entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if len(value) != len(kinds):
        raise ValueError(f"{where} should have {len(kinds)} entries, has {len(value)}")
    return tuple(
        parse_json(kind, entry, f"{where}[{i}]") for i, (kind, entry) in enumerate(zip(kinds, value, strict=True))
    )
