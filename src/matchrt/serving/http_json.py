"""Answers in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Response


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer with that value as its body. Raises nothing for values of JSON."""
    return Response(orjson.dumps(value), status, headers, "application/json")
