"""Finds the placement of Q/DQ nodes that a backend needs."""

from __future__ import annotations

from matchrt.export.quantization.styles import STYLES, QuantStyle
from matchrt.runtime.backend import get_backend


def style_for(precision: str, backend: str, version: str | None = None) -> QuantStyle:
    """The placement that a backend needs for `int8` or `fp8`. version: of the backend; None for the newest.

    Errors: backend-unknown, precision-backend.
    """
    return STYLES[get_backend(backend).quantization(precision, version)]
