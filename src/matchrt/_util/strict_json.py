"""JSON from files that may be damaged or made to do harm: every fault is a ValueError, and numbers stay small."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from matchrt._util.text import shown

# 64-bit integers have at most 20 characters.
_DIGITS = 20


def read_json(text: str | bytes, *, unique_keys: bool = False) -> Any:
    """The value of a JSON text.

    text: UTF-8 if it is bytes, with or without a byte order mark.
    unique_keys: refuse an object that has a key twice, of which readers choose different ones.
    Error: ValueError, for what is no JSON (NaN and Infinity are none), is nested too deeply, or has numbers beyond what
    64-bit integers and floats hold.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        return json.loads(
            text,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_no_constant,
            object_pairs_hook=_unique if unique_keys else None,
        )
    except RecursionError:
        # The chain of a thousand frames would only fill the log.
        raise ValueError("it is nested too deeply") from None


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a whole number has {len(digits):,} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"a number is too large: {digits[:40]}")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} is there twice")
        found[key] = value
    return found
