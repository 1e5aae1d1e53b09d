"""The engines that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

BUNDLED = ("loftr-lite",)


def bundled_path(model: str) -> Path:
    """The engine file of a bundled model; its manifest is beside it. Raises nothing, even if there is no such file."""
    return Path(str(resources.files("matchrt") / "assets" / f"{model}.onnx"))
